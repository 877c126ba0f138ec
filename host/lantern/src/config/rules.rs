//! Checks across settings and of the disk: files that must exist, and settings that contradict each other.

use super::keys;
use super::layers::SettingOrigin;
use super::settings::{Kind, SETTINGS};
use super::value::{Value, expected, is_loopback};
use super::{Problem, Problems, Resolved};

/// Finds problems of settings whose single values are valid.
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
        // An invalid key is a separate problem.
        && problems.iter().all(|problem| problem.setting != "plugins.keys")
    {
        problems.push(Problem::new(
            "plugins.signatures",
            origin,
            "\"require\" requires trusted keys, and plugins.keys is not set",
            "set plugins.keys to the public keys that you trust",
        ));
    }
}

/// Outside loopback, only the list of host names protects against DNS rebinding.
fn check_listen(resolved: &Resolved, problems: &mut Problems) {
    let Some((Value::Address(address), origin)) = resolved.get("listen") else {
        return;
    };
    if !is_loopback(address.ip()) && resolved.get("http.hosts").is_none() {
        problems.push(Problem::new(
            "listen",
            origin,
            format!("\"{address}\" is reachable from other machines, and http.hosts is not set"),
            "set http.hosts to the names of this host, or listen on 127.0.0.1 or [::1]",
        ));
    }
}

fn check_disk(resolved: &Resolved, problems: &mut Problems) {
    for setting in SETTINGS {
        let Some((Value::Path(path), origin)) = resolved.get(setting.path) else {
            continue;
        };
        let fault = match setting.kind {
            Kind::File => match std::fs::File::open(path).and_then(|file| file.metadata()) {
                Ok(meta) if meta.is_file() => None,
                Ok(_) => Some("not a file".to_owned()),
                Err(error) => Some(format!("failed to read: {error}")),
            },
            // The host creates the default plugin directory; a configured one must exist.
            Kind::Directory if *origin != SettingOrigin::Default => match std::fs::read_dir(path) {
                Ok(_) => None,
                Err(error) => Some(format!("failed to read: {error}")),
            },
            _ => None,
        };
        if let Some(fault) = fault {
            let message = format!("{}: {fault}", path.display());
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
        let message = format!("{}: not a directory", path.display());
        problems.push(Problem::new(
            "data_dir",
            origin,
            message,
            "use the path of a directory",
        ));
    }
}

/// Settings that are valid only with an external broker.
const EXTERNAL_ONLY: [&str; 10] = [
    "broker.credentials_file",
    "broker.nkey_file",
    "broker.user_file",
    "broker.token_file",
    "broker.tls.cert",
    "broker.context",
    "broker.jetstream_domain",
    "broker.jetstream_api_prefix",
    "broker.inbox_prefix",
    "broker.tls.ca",
];

fn check_broker(resolved: &Resolved, problems: &mut Problems) {
    let set = |path: &str| resolved.get(path).map(|(_, origin)| origin);
    let url = set("broker.url");

    if let (Some(_), Some(origin)) = (url, set("broker.context")) {
        problems.push(Problem::new(
            "broker.context",
            origin,
            "conflicts with broker.url",
            "remove one of the two; the credentials of a context are not for other servers",
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
            format!("conflicts with {first}"),
            "keep one login method",
        ));
    }
    check_pairs(resolved, problems);
    if url.is_none() && set("broker.context").is_none() {
        check_external_only(resolved, problems);
    }
    check_embedded(resolved, problems);
    check_prefix(resolved, problems);
}

/// Settings that require each other.
fn check_pairs(resolved: &Resolved, problems: &mut Problems) {
    let set = |path: &str| resolved.get(path).map(|(_, origin)| origin);
    for (one, other) in [
        ("broker.user_file", "broker.password_file"),
        ("broker.tls.cert", "broker.tls.key"),
    ] {
        for (present, missing) in [(one, other), (other, one)] {
            if let (Some(origin), None) = (set(present), set(missing)) {
                problems.push(Problem::new(
                    present,
                    origin,
                    format!("requires {missing}"),
                    format!("set {missing} as well, or remove {present}"),
                ));
            }
        }
    }
}

/// Settings of an external broker without an external broker.
fn check_external_only(resolved: &Resolved, problems: &mut Problems) {
    for path in EXTERNAL_ONLY {
        if let Some((_, origin)) = resolved.get(path) {
            problems.push(Problem::new(
                path,
                origin,
                "requires an external broker, and none is set",
                "set broker.url, or remove this setting",
            ));
        }
    }
}

/// A consumer name has at most 255 characters, including plugin and source.
const PREFIX_CHARS_MAX: usize = 64;

fn check_prefix(resolved: &Resolved, problems: &mut Problems) {
    if let Some((Value::Text(prefix), origin)) = resolved.get("broker.consumer_prefix")
        && prefix.len() > PREFIX_CHARS_MAX
    {
        problems.push(Problem::new(
            "broker.consumer_prefix",
            origin,
            format!("too long: {} characters", prefix.len()),
            format!("use at most {PREFIX_CHARS_MAX} characters"),
        ));
    }
}

/// Settings of the embedded broker together with an external broker are a problem within one layer. A flag may override a
/// file for one run.
fn check_embedded(resolved: &Resolved, problems: &mut Problems) {
    for broker in ["broker.url", "broker.context"] {
        let Some((_, named)) = resolved.get(broker) else {
            continue;
        };
        for path in ["broker.embedded.binary", "broker.embedded.port"] {
            if let Some((_, origin)) = resolved.get(path)
                && *origin != SettingOrigin::Default
                && origin.same_layer(named)
            {
                problems.push(Problem::new(
                    path,
                    origin,
                    format!("has no effect, because {broker} is set"),
                    format!("remove this setting or {broker}"),
                ));
            }
        }
    }
}
