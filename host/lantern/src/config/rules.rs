//! What settings ask of each other and of the disk: files that have to be there, and settings that contradict.

use super::keys;
use super::layers::Origin;
use super::settings::{Kind, SETTINGS};
use super::value::{Value, expected, is_loopback};
use super::{Problem, Problems, Resolved};

/// Finds everything that is wrong with values which are right by themselves.
pub fn check(resolved: &Resolved, problems: &mut Problems) {
    check_disk(resolved, problems);
    check_broker(resolved, problems);
    check_listen(resolved, problems);
    check_signatures(resolved, problems);
}

fn check_signatures(resolved: &Resolved, problems: &mut Problems) {
    problems.extend(keys::read(resolved).1);
    if let Some((Value::Text(rule), origin)) = resolved.get("plugins.signatures")
        && rule == "require"
        && resolved.get("plugins.keys").is_none()
        // One that could not be read is a problem of its own.
        && problems.iter().all(|problem| problem.setting != "plugins.keys")
    {
        problems.push(Problem::new(
            "plugins.signatures",
            origin,
            "\"require\" needs to know whose signatures are good, and plugins.keys is not set",
            "set plugins.keys to the public keys that you trust",
        ));
    }
}

/// Off loopback a page that makes its name resolve here is only kept out by the list of our own names.
fn check_listen(resolved: &Resolved, problems: &mut Problems) {
    let Some((Value::Address(address), origin)) = resolved.get("listen") else {
        return;
    };
    if !is_loopback(address.ip()) && resolved.get("http.hosts").is_none() {
        problems.push(Problem::new(
            "listen",
            origin,
            format!("\"{address}\" can be reached from other machines, and http.hosts is not set"),
            "set http.hosts to the names by which they call this host, or listen on 127.0.0.1 or [::1]",
        ));
    }
}

fn check_disk(resolved: &Resolved, problems: &mut Problems) {
    for setting in SETTINGS {
        let Some((Value::Path(path), origin)) = resolved.get(setting.path) else {
            continue;
        };
        let what_is_wrong = match setting.kind {
            Kind::File => match std::fs::File::open(path).and_then(|file| file.metadata()) {
                Ok(meta) if meta.is_file() => None,
                Ok(_) => Some("is not a file".to_owned()),
                Err(error) => Some(format!("cannot be read: {error}")),
            },
            // The default plugin directory is made when it is missing; one that was named has to be there.
            Kind::Directory if *origin != Origin::Default => match std::fs::read_dir(path) {
                Ok(_) => None,
                Err(error) => Some(format!("cannot be read: {error}")),
            },
            _ => None,
        };
        if let Some(what) = what_is_wrong {
            let message = format!("{} {what}", path.display());
            problems.push(Problem::new(
                setting.path,
                origin,
                message,
                expected(setting.kind),
            ));
        }
    }
    if let Some((Value::Path(path), origin)) = resolved.get("data_dir")
        && std::fs::metadata(path).is_ok_and(|meta| !meta.is_dir())
    {
        let message = format!("{} is not a directory", path.display());
        problems.push(Problem::new(
            "data_dir",
            origin,
            message,
            "give the path of a directory",
        ));
    }
}

/// Ways of proving who one is that are for a broker somewhere else.
const CREDENTIALS: [&str; 6] = [
    "broker.credentials_file",
    "broker.nkey_file",
    "broker.user_file",
    "broker.token_file",
    "broker.tls.cert",
    "broker.context",
];

fn check_broker(resolved: &Resolved, problems: &mut Problems) {
    let set = |path: &str| resolved.get(path).map(|(_, origin)| origin);
    let url = set("broker.url");

    if let (Some(_), Some(origin)) = (url, set("broker.context")) {
        problems.push(Problem::new(
            "broker.context",
            origin,
            "names servers, and so does broker.url",
            "keep one of the two: a context's credentials are not for other servers",
        ));
    }
    let ways = [
        "broker.credentials_file",
        "broker.user_file",
        "broker.token_file",
        "broker.nkey_file",
    ];
    let chosen: Vec<&str> = ways.into_iter().filter(|way| set(way).is_some()).collect();
    if let [first, .., last] = chosen[..]
        && let Some(origin) = set(last)
    {
        problems.push(Problem::new(
            last,
            origin,
            format!("contradicts {first}"),
            "keep one way to log in",
        ));
    }
    for (one, other) in [
        ("broker.user_file", "broker.password_file"),
        ("broker.tls.cert", "broker.tls.key"),
    ] {
        for (there, missing) in [(one, other), (other, one)] {
            if let (Some(origin), None) = (set(there), set(missing)) {
                problems.push(Problem::new(
                    there,
                    origin,
                    format!("needs {missing}"),
                    format!("set {missing} as well, or remove {there}"),
                ));
            }
        }
    }
    if url.is_none() && set("broker.context").is_none() {
        for path in CREDENTIALS.into_iter().chain([
            "broker.jetstream_domain",
            "broker.jetstream_api_prefix",
            "broker.inbox_prefix",
            "broker.tls.ca",
        ]) {
            if let Some(origin) = set(path) {
                problems.push(Problem::new(
                    path,
                    origin,
                    "is set, but no broker is named that it could be for",
                    "set broker.url, or remove it: the embedded broker needs none",
                ));
            }
        }
    }
    check_embedded(resolved, problems);
    check_prefix(resolved, problems);
}

/// The broker takes names of 255 characters; plugin and source have to fit in as well.
const PREFIX_CHARS_MAX: usize = 64;

fn check_prefix(resolved: &Resolved, problems: &mut Problems) {
    if let Some((Value::Text(prefix), origin)) = resolved.get("broker.consumer_prefix")
        && prefix.len() > PREFIX_CHARS_MAX
    {
        problems.push(Problem::new(
            "broker.consumer_prefix",
            origin,
            format!("has {} characters", prefix.len()),
            format!("use at most {PREFIX_CHARS_MAX}"),
        ));
    }
}

/// The embedded broker's settings beside a named broker: a mistake when somebody wrote both in one place. A
/// flag over a file is a choice for one run, and allowed.
fn check_embedded(resolved: &Resolved, problems: &mut Problems) {
    for broker in ["broker.url", "broker.context"] {
        let Some((_, named)) = resolved.get(broker) else {
            continue;
        };
        for path in ["broker.embedded.binary", "broker.embedded.port"] {
            if let Some((_, origin)) = resolved.get(path)
                && *origin != Origin::Default
                && origin.same_layer(named)
            {
                problems.push(Problem::new(
                    path,
                    origin,
                    format!("has no effect, since {broker} names a broker"),
                    format!("remove it, or {broker}"),
                ));
            }
        }
    }
}
