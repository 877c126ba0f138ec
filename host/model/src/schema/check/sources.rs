//! Checks the sources of a manifest: names, streams and subjects.

use super::{Problems, clean};
use crate::limits::SUBJECTS_MAX;
use crate::schema::subjects::{covers, overlap};
use crate::schema::{Origin, RawSource, Source, SourceName};

pub(super) fn check_sources(raw: Vec<RawSource>, problems: &mut Problems) -> Option<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::with_capacity(raw.len());
    for source in raw {
        let Some(name) = problems.keep(SourceName::parse(&source.name)) else {
            continue;
        };
        let place = format!("source {name}");
        if sources.iter().any(|other| other.name == name) {
            problems.push(format!("{place} is declared twice"));
        }
        match &source.origin {
            Origin::JetStream { stream, subjects } => {
                if let Err(problem) = check_stream_name(stream) {
                    problems.push(format!("{place}: {problem}"));
                }
                check_subjects(&place, subjects, problems);
                // The broker rejects such a consumer. It accepts other overlapping subjects, and delivers once.
                check_pairs(&place, subjects, problems, |a, b| covers(a, b) || covers(b, a));
            }
            Origin::Core { subjects } => {
                if subjects.is_empty() {
                    problems.push(format!("{place}: a core source names at least one subject"));
                }
                check_subjects(&place, subjects, problems);
                // Each subject is a separate subscription: a message that matches both would arrive twice.
                check_pairs(&place, subjects, problems, overlap);
            }
        }
        sources.push(Source {
            name,
            origin: source.origin,
            wants_headers: source.wants_headers,
        });
    }
    Some(sources)
}

/// The server's rule: no white space, dots, wildcards or path separators.
fn check_stream_name(stream: &str) -> Result<(), String> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if stream.is_empty() || stream.len() > 255 || stream.contains(forbidden) {
        Err(format!("{:?} is not a stream name", clean(stream)))
    } else {
        Ok(())
    }
}

fn check_subjects(place: &str, subjects: &[String], problems: &mut Problems) {
    problems.bound(&format!("subjects of {place}"), subjects.len(), SUBJECTS_MAX);
    for subject in subjects {
        let tokens: Vec<&str> = subject.split('.').collect();
        let bad_token = |(position, token): (usize, &&str)| {
            token.is_empty()
                || token.contains(|c: char| c.is_whitespace() || c.is_control())
                || (*token != "*" && *token != ">" && token.contains(['*', '>']))
                || (*token == ">" && position + 1 != tokens.len())
        };
        if subject.len() > 4096 || tokens.iter().enumerate().any(bad_token) {
            problems.push(format!("{place}: {:?} is not a subject", clean(subject)));
        }
    }
}

/// Reports subjects of one source that contradict each other.
fn check_pairs(
    place: &str,
    subjects: &[String],
    problems: &mut Problems,
    contradict: impl Fn(&str, &str) -> bool,
) {
    // Longer lists are rejected for their length, and comparing all their pairs would take long.
    for (index, subject) in subjects.iter().enumerate().take(SUBJECTS_MAX) {
        if let Some(other) = subjects[..index].iter().find(|other| contradict(subject, other)) {
            problems.push(format!(
                "{place}: subjects {:?} and {:?} overlap; keep one of them",
                clean(other),
                clean(subject)
            ));
        }
    }
}
