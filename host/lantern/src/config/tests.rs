//! Raw values and the resulting configuration, case by case.

use super::*;
use lantern_trust::signature::Rule;
use std::ffi::OsString;

/// A directory with a configuration file in it.
struct ConfigInput {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn input(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> ConfigInput {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lantern.toml");
    std::fs::write(&path, file).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    let flags = flags
        .iter()
        .map(|(setting, name, value)| Flag {
            setting,
            name,
            value: OsString::from(value),
        })
        .collect();
    ConfigInput {
        dir,
        sources: Sources {
            file: Some(path),
            env,
            flags,
        },
    }
}

/// The problems as text, with the test's directory taken out.
fn problems(input: &ConfigInput) -> Vec<String> {
    let dir = format!("{}/", input.dir.path().display());
    match resolve(&input.sources).1 {
        Ok(_) => Vec::new(),
        Err(error) => error
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&dir, ""))
            .collect(),
    }
}

#[test]
fn every_preset_is_a_value_of_its_kind() {
    for setting in SETTINGS {
        if let Some(text) = setting.preset.text() {
            let value = Value::parse(
                setting.kind,
                &value::RawSetting::Bare(text.clone()),
                Path::new(""),
            )
            .unwrap();
            // The text in the reference and in `config show` must have the same meaning.
            assert_eq!(value.to_string().trim_matches('"'), text, "{}", setting.path);
        }
    }
}

#[test]
fn an_empty_input_yields_the_defaults() {
    let (_, config) = resolve(&Sources::default());
    let config = config.unwrap();
    assert_eq!(config.data_dir, Path::new("./lantern-data"));
    assert_eq!(config.plugin_dir, Path::new("./lantern-data/plugins"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(
        config.broker,
        BrokerSettings::Embedded {
            binary: None,
            port: 0
        }
    );
    assert!(config.streams_create);
    assert_eq!(config.shutdown_time, Duration::from_secs(5));
    assert_eq!(config.limits.memory_bytes, 64 << 20);
}

#[test]
fn flag_beats_env_beats_file_beats_default() {
    let file = "listen = '127.0.0.1:1'\n[batch]\nmessages_max = 10\n[limits]\nmemory = '2 MiB'\n";
    let env = [
        ("LANTERN__LISTEN", "127.0.0.1:2"),
        ("LANTERN__BATCH__MESSAGES_MAX", "20"),
    ];
    let (_, config) = resolve(&input(file, &env, &[("listen", "--listen", "localhost:3")]).sources);
    let config = config.unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.batch.messages_max, 20);
    assert_eq!(config.limits.memory_bytes, 2 << 20);
    assert_eq!(config.batch.bytes_max, 8 << 20);
}

#[test]
fn all_problems_are_reported_together() {
    let file = "lisen = '127.0.0.1:7070'\n\
                data_dir = 7\n\
                \n\
                [broker]\n\
                credentials_file = 'none.creds'\n\
                tls = true\n\
                [limits]\n\
                memory = '64 megs'\n\
                message_time = '2h'\n\
                rows_per_message = '5'\n\
                [store]\n\
                synchronous = 'off'\n";
    let env = [
        ("LANTERN__BROKER__URI", "x"),
        ("LANTERN__LOG__FORMAT", "xml"),
        ("LANTERN_NATS_SERVER", "/x"),
    ];
    let flags = [("listen", "--listen", "0.0.0.0:80")];
    let found = problems(&input(file, &env, &flags)).join("\n");
    let expected = "\
lantern.toml:1: lisen: unknown setting; did you mean listen?
lantern.toml:2: data_dir: unexpected number; use a path in quotes
lantern.toml:5: broker.credentials_file: none.creds: failed to read: No such file or directory (os error 2); use the path of a readable file
lantern.toml:5: broker.credentials_file: requires an external broker, and none is set; set broker.url, or remove this setting
lantern.toml:6: broker.tls: expected a section, found a value; write [broker.tls] and its settings below that line
lantern.toml:8: limits.memory: not a size: \"64 megs\"; use a size from 1 MiB to 4 GiB, such as \"64 MiB\"
lantern.toml:9: limits.message_time: out of range: \"2h\"; use a duration from 1ms to 1m, such as \"500ms\" or \"5s\"
lantern.toml:10: limits.rows_per_message: unexpected text: \"5\"; use a whole number from 1 to 100000, without quotes in a file
lantern.toml:12: store.synchronous: unknown value: \"off\"; use one of normal, full
env LANTERN__BROKER__URI: broker.uri: unknown setting; did you mean LANTERN__BROKER__URL?
env LANTERN__LOG__FORMAT: log.format: unknown value: \"xml\"; use one of text, json
flag --listen: listen: \"0.0.0.0:80\" is reachable from other machines, and http.hosts is not set; set http.hosts to the names of this host, or listen on 127.0.0.1 or [::1]";
    assert_eq!(found, expected);
}

/// Invalid settings, and what the report of each contains.
const INVALID: [(&str, &str); 38] = [
    (
        "listen = 'example.org:1'",
        "listen: not an address with a port: \"example.org:1\"",
    ),
    ("listen = '127.0.0.1'", "not an address with a port"),
    ("listen = '127.0.0.1:70000'", "not an address with a port"),
    ("listen = '[::]:7070'", "is reachable from other machines"),
    ("http.hosts = ''", "not a host name: \"\""),
    ("http.hosts = 'a:80'", "not a host name: \"a:80\""),
    ("http.hosts = 'http://a'", "not a host name"),
    ("http.hosts = 'a,*.b'", "not a host name: \"*.b\""),
    (
        "broker.url = 'http://bob:hunter2@x'",
        "not the URL of a NATS server: \"http://***@x\"",
    ),
    ("broker.url = ''", "not the URL of a NATS server"),
    ("broker.url = 'nats://a,'", "not the URL of a NATS server"),
    ("batch.messages_max = 0", "out of range: 0"),
    ("batch.messages_max = -1", "out of range: -1"),
    (
        "batch.messages_max = 1.5",
        "unsupported type: a number with a fraction",
    ),
    (
        "batch.messages_max = 99999999999999999999",
        "unsupported type: a number this large",
    ),
    ("batch.bytes_max = 1", "out of range: 1 bytes"),
    ("shutdown_time = 5", "unexpected number; use a duration"),
    ("shutdown_time = '5'", "not a duration: \"5\""),
    ("log.filter = 'a=b=c'", "not a log filter"),
    (
        "streams.create = 'yes'",
        "unexpected text: \"yes\"; use true or false",
    ),
    ("data_dir = ''", "not a path: \"\""),
    ("plugin_dir = 'nowhere'", "nowhere: failed to read"),
    ("broker.context = '../x'", "not a name"),
    (
        "plugins.signatures = 'required'",
        "unknown value: \"required\"; use one of off, warn, require",
    ),
    (
        "plugins.signatures = 'require'",
        "plugins.signatures: \"require\" requires trusted keys, and plugins.keys is not set",
    ),
    (
        "plugins.keys = 'RWRTY0IyabcSECRET'",
        "plugins.keys: contains a secret key, which must be known only to its owner",
    ),
    ("plugins.keys = 'RWQf6', ", "invalid TOML"),
    ("plugins.keys = ['RWQf6']", "unsupported type: a list"),
    ("broker.tls.cert = 'lantern.toml'", "requires broker.tls.key"),
    (
        "broker.user_file = 'lantern.toml'",
        "requires broker.password_file",
    ),
    ("broker = 1", "expected a section, found a value"),
    ("data_dir = 'lantern.toml'", "lantern.toml: not a directory"),
    ("x = [", "invalid TOML"),
    ("listen = 127.0.0.1:7070", "invalid TOML"),
    (
        "listen = '127.0.0.1:1'\nlisten = '127.0.0.1:2'",
        "lantern.toml:2: invalid TOML: duplicate key",
    ),
    (
        "broker.url = 'nats://a'\nbroker.context = 'b'",
        "conflicts with broker.url",
    ),
    (
        "broker.url = 'nats://a'\nbroker.embedded.port = 1",
        "has no effect",
    ),
    (
        "broker = { url = 'nats://a', credentials_file = 'lantern.toml', token_file = 'lantern.toml' }",
        "broker.token_file: conflicts with broker.credentials_file",
    ),
];

#[test]
fn each_invalid_value_is_reported_with_setting_and_fix() {
    for (file, expected) in INVALID {
        let found = problems(&input(file, &[], &[]));
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{file}\n{found:#?}"
        );
        assert!(
            found.iter().all(|problem| !problem.contains("hunter2")),
            "{found:#?}"
        );
    }
}

#[test]
fn a_flag_may_select_another_broker() {
    let file = "[broker.embedded]\nport = 4333\n";
    let (_, config) = resolve(&input(file, &[], &[("broker.url", "--nats", "127.0.0.1:4222")]).sources);
    let config = config.unwrap();
    assert!(!config.streams_create);
    let BrokerSettings::Remote(remote) = config.broker else {
        panic!("{:?}", config.broker)
    };
    assert!(remote.servers == Servers::Urls(vec!["127.0.0.1:4222".into()]));
}

#[test]
fn other_machines_may_use_the_listed_names() {
    let file = "listen = '0.0.0.0:7070'\nhttp.hosts = 'Lantern.Example.org, 10.0.0.7,[2001:db8::1]'\n";
    let config = resolve(&input(file, &[], &[]).sources).1.unwrap();
    assert_eq!(config.hosts, ["lantern.example.org", "10.0.0.7", "2001:db8::1"]);
    assert!(!is_loopback(config.listen.ip()));
    let mapped = input("", &[], &[("listen", "--listen", "[::ffff:127.0.0.1]:0")]);
    assert!(is_loopback(resolve(&mapped.sources).1.unwrap().listen.ip()));
}

#[test]
fn a_missing_file_is_one_problem() {
    let sources = Sources {
        file: Some("nowhere/lantern.toml".into()),
        ..Sources::default()
    };
    let error = resolve(&sources).1.unwrap_err();
    assert_eq!(error.to_string(), "invalid configuration: 1 problem");
    assert!(
        error.problems[0]
            .to_string()
            .starts_with("flag --config: nowhere/lantern.toml: failed to read")
    );
}

#[test]
fn systemd_sets_the_data_directory() {
    let sources = Sources {
        env: vec![("STATE_DIRECTORY".into(), "/var/lib/lantern:/var/lib/other".into())],
        ..Sources::default()
    };
    let (resolved, config) = resolve(&sources);
    assert_eq!(config.unwrap().data_dir, Path::new("/var/lib/lantern"));
    assert!(resolved.show().contains("# env STATE_DIRECTORY"));
}

#[test]
fn show_prints_origins_and_no_secrets() {
    let file = "data_dir = 'data'\n[limits]\nmemory = 1048576\nmessage_time = '250ms'\n";
    let env = [("LANTERN__BROKER__URL", "nats://bob:hunter2@localhost:4222")];
    let file = input(file, &env, &[("listen", "--listen", "[::1]:0")]);
    let (resolved, config) = resolve(&file.sources);
    config.unwrap();
    let shown = resolved
        .show()
        .replace(&format!("{}/", file.dir.path().display()), "");
    let shown: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let golden = include_str!("show.golden.txt");
    assert_eq!(
        shown.join("\n"),
        golden.trim_end(),
        "the output of `config show` has changed"
    );
}

#[test]
fn a_log_filter_is_shown_unchanged() {
    let file = input("log.filter = 'info,x[{peer=a@o}]=debug'\n", &[], &[]);
    let shown = resolve(&file.sources).0.show();
    assert!(
        shown.contains("log.filter = \"info,x[{peer=a@o}]=debug\""),
        "{shown}"
    );
}

#[test]
fn show_and_reference_print_valid_configuration() {
    let (resolved, _) = resolve(&Sources::default());
    let shown = input(&resolved.show(), &[], &[]);
    // A configured plugin directory must exist.
    assert_eq!(problems(&shown).len(), 1, "{:#?}", problems(&shown));

    let uncommented: String = reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    for setting in SETTINGS {
        let key = setting.path.rsplit('.').next().unwrap();
        assert!(
            uncommented.contains(&format!("\n{key} = ")),
            "{} is missing",
            setting.path
        );
    }
    for problem in problems(&input(&uncommented, &[], &[])) {
        let about_examples = problem.contains("failed to read")
            || problem.contains("not a readable file")
            || problem.contains("conflicts with")
            || problem.contains("has no effect");
        assert!(about_examples, "{problem}");
    }
}

/// From the documentation of minisign.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn keys_are_literal_or_in_files_and_each_invalid_one_is_reported() {
    let good = input(
        &format!("[plugins]\nsignatures = 'require'\nkeys = 'keys/me.pub, {KEY}'\n"),
        &[],
        &[],
    );
    let keys = good.dir.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(
        keys.join("me.pub"),
        format!("untrusted comment: minisign public key\n{KEY}\n"),
    )
    .unwrap();
    let (resolved, config) = resolve(&good.sources);
    let signatures = config.unwrap().signatures;
    assert_eq!(signatures.rule, Rule::Require);
    let ids: Vec<String> = signatures.keys.iter().map(|key| key.id().to_string()).collect();
    assert_eq!(ids, ["E7620F1842B4E81F"; 2]);
    assert!(resolved.show().contains(&format!("keys/me.pub, {KEY}\"")));

    let other = KEY.replace("RWQf", "RWXX");
    let bad = input(
        &format!(
            "plugins.signatures = 'require'\nplugins.keys = '{KEY}, none.pub, RWshort, lantern.toml, {other}9'\n"
        ),
        &[],
        &[],
    );
    let found = problems(&bad).join("\n");
    let fix =
        "use the second line of a minisign .pub file, or the path of the file; separate several by commas";
    let expected = [
        "\"none.pub\": not a minisign public key, and not a readable file: No such file or directory (os error 2)",
        "\"RWshort\": not a minisign public key, and not a readable file: No such file or directory (os error 2)",
        &format!("\"lantern.toml\": {}", lantern_trust::signature::KeyError::NotAKey),
        &format!("\"{other}9\": not a minisign public key, and not a readable file: No such file or directory (os error 2)"),
    ]
    .map(|message| format!("lantern.toml:2: plugins.keys: {message}; {fix}"));
    assert_eq!(found, expected.join("\n"));
    for shown in [
        found,
        resolve(&input("plugins.keys = 'x.pub, RWQAAEIySECRET'", &[], &[]).sources)
            .0
            .show(),
    ] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn host_and_authoring_tools_have_the_same_default_limits() {
    let sources = Sources::default();
    let of_host = resolve(&sources).1.unwrap().limits;
    let of_tools = lantern_plugin::Limits::default();
    let size = |bytes: usize| bytes as u64;
    assert_eq!(of_host.memory_bytes, size(of_tools.memory_bytes));
    assert_eq!(of_host.message_time, of_tools.message_time);
    assert_eq!(of_host.rows_per_message as usize, of_tools.rows_per_message);
    assert_eq!(of_host.bytes_per_message, size(of_tools.bytes_per_message));
    assert_eq!(of_host.module_bytes, size(of_tools.module_bytes));
    assert_eq!(of_host.compile_time, of_tools.compile_time);
    assert_eq!(of_host.compile_memory_bytes, of_tools.compile_memory_bytes);
}

#[test]
fn a_variable_with_a_missing_underscore_is_a_problem() {
    let misspelled = input(
        "",
        &[("LANTERN_LIMITS__MEMORY", "1 MiB"), ("LANTERN_NATS_SERVER", "x")],
        &[],
    );
    assert_eq!(
        problems(&misspelled),
        ["env LANTERN_LIMITS__MEMORY: unknown setting, has no effect; did you mean LANTERN__LIMITS__MEMORY?"]
    );
}
