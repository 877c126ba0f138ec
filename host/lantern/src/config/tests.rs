//! What is written and what it means, case by case.

use super::*;
use std::ffi::OsString;

/// A directory with a configuration file in it.
struct Written {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn written(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Written {
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
    Written {
        dir,
        sources: Sources {
            file: Some(path),
            env,
            flags,
        },
    }
}

/// The problems as text, with the test's directory taken out.
fn problems(written: &Written) -> Vec<String> {
    let dir = format!("{}/", written.dir.path().display());
    match resolve(&written.sources).1 {
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
        if let Some(text) = setting.preset.written() {
            let value =
                Value::parse(setting.kind, &value::Written::Bare(text.clone()), Path::new("")).unwrap();
            // Written as the reference and `config show` write it, it has to mean the same.
            assert_eq!(value.to_string().trim_matches('"'), text, "{}", setting.path);
        }
    }
}

#[test]
fn nothing_written_is_a_configuration() {
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
    let (_, config) = resolve(&written(file, &env, &[("listen", "--listen", "localhost:3")]).sources);
    let config = config.unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.batch.messages_max, 20);
    assert_eq!(config.limits.memory_bytes, 2 << 20);
    assert_eq!(config.batch.bytes_max, 8 << 20);
}

#[test]
fn all_problems_are_told_at_once() {
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
    let found = problems(&written(file, &env, &flags)).join("\n");
    let expected = "\
lantern.toml:1: lisen: there is no such setting; did you mean listen?
lantern.toml:2: data_dir: is a number; give a path in quotes
lantern.toml:5: broker.credentials_file: none.creds cannot be read: No such file or directory (os error 2); give the path of a file that can be read
lantern.toml:5: broker.credentials_file: is set, but no broker is named that it could be for; set broker.url, or remove it: the embedded broker needs none
lantern.toml:6: broker.tls: is a section, not a value; write [broker.tls] and its settings below it
lantern.toml:8: limits.memory: \"64 megs\" is not a size; give a size from 1 MiB to 4 GiB, such as \"64 MiB\"
lantern.toml:9: limits.message_time: \"2h\" is out of range; give a time with its unit from 1ms to 1m, such as \"500ms\" or \"5s\"
lantern.toml:10: limits.rows_per_message: \"5\" is text; give a whole number from 1 to 100000, without quotes in a file
lantern.toml:12: store.synchronous: \"off\" is not known; use one of normal, full
env LANTERN__BROKER__URI: broker.uri: there is no such setting; did you mean LANTERN__BROKER__URL?
env LANTERN__LOG__FORMAT: log.format: \"xml\" is not known; use one of text, json
flag --listen: listen: \"0.0.0.0:80\" can be reached from other machines, and http.hosts is not set; set http.hosts to the names by which they call this host, or listen on 127.0.0.1 or [::1]";
    assert_eq!(found, expected);
}

#[test]
fn each_bad_value_names_setting_and_fix() {
    let cases = [
        (
            "listen = 'example.org:1'",
            "listen: \"example.org:1\" is not an address with a port",
        ),
        ("listen = '127.0.0.1'", "is not an address with a port"),
        ("listen = '127.0.0.1:70000'", "is not an address with a port"),
        ("listen = '[::]:7070'", "can be reached from other machines"),
        ("http.hosts = ''", "\"\" is not the name of a host"),
        ("http.hosts = 'a:80'", "\"a:80\" is not the name of a host"),
        ("http.hosts = 'http://a'", "is not the name of a host"),
        ("http.hosts = 'a,*.b'", "\"*.b\" is not the name of a host"),
        (
            "broker.url = 'http://bob:hunter2@x'",
            "\"http://***@x\" is not the address of a NATS server",
        ),
        ("broker.url = ''", "is not the address of a NATS server"),
        ("broker.url = 'nats://a,'", "is not the address of a NATS server"),
        ("batch.messages_max = 0", "0 is out of range"),
        ("batch.messages_max = -1", "-1 is out of range"),
        (
            "batch.messages_max = 1.5",
            "a number with a fraction cannot be a value",
        ),
        (
            "batch.messages_max = 99999999999999999999",
            "a number this large cannot be a value",
        ),
        ("batch.bytes_max = 1", "1 bytes are out of range"),
        ("shutdown_time = 5", "is a number; give a time with its unit"),
        ("shutdown_time = '5'", "\"5\" is not a span of time"),
        ("log.filter = 'a=b=c'", "is not a filter"),
        ("streams.create = 'yes'", "\"yes\" is text; write true or false"),
        ("data_dir = ''", "\"\" is not a path"),
        ("plugin_dir = 'nowhere'", "nowhere cannot be read"),
        ("broker.context = '../x'", "is not a name"),
        (
            "plugins.signatures = 'required'",
            "\"required\" is not known; use one of off, warn, require",
        ),
        (
            "plugins.signatures = 'require'",
            "plugins.signatures: \"require\" needs to know whose signatures are good, and plugins.keys is not set",
        ),
        (
            "plugins.keys = 'RWRTY0IyabcSECRET'",
            "plugins.keys: holds a secret key, which nobody but its owner may have",
        ),
        ("plugins.keys = 'RWQf6', ", "this is not TOML"),
        ("plugins.keys = ['RWQf6']", "a list cannot be a value"),
        ("broker.tls.cert = 'lantern.toml'", "needs broker.tls.key"),
        ("broker.user_file = 'lantern.toml'", "needs broker.password_file"),
        ("broker = 1", "is a section, not a value"),
        ("data_dir = 'lantern.toml'", "lantern.toml is not a directory"),
        ("x = [", "this is not TOML"),
        ("listen = 127.0.0.1:7070", "this is not TOML"),
        (
            "listen = '127.0.0.1:1'\nlisten = '127.0.0.1:2'",
            "lantern.toml:2: this is not TOML: duplicate key",
        ),
        (
            "broker.url = 'nats://a'\nbroker.context = 'b'",
            "names servers, and so does broker.url",
        ),
        (
            "broker.url = 'nats://a'\nbroker.embedded.port = 1",
            "has no effect",
        ),
        (
            "broker = { url = 'nats://a', credentials_file = 'lantern.toml', token_file = 'lantern.toml' }",
            "broker.token_file: contradicts broker.credentials_file",
        ),
    ];
    for (file, expected) in cases {
        let found = problems(&written(file, &[], &[]));
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
fn a_flag_may_point_a_configured_host_at_another_broker() {
    let file = "[broker.embedded]\nport = 4333\n";
    let (_, config) = resolve(&written(file, &[], &[("broker.url", "--nats", "127.0.0.1:4222")]).sources);
    let config = config.unwrap();
    assert!(!config.streams_create);
    let BrokerSettings::Remote(remote) = config.broker else {
        panic!("{:?}", config.broker)
    };
    assert!(remote.servers == Servers::Urls(vec!["127.0.0.1:4222".into()]));
}

#[test]
fn other_machines_are_served_under_names_that_are_listed() {
    let file = "listen = '0.0.0.0:7070'\nhttp.hosts = 'Lantern.Example.org, 10.0.0.7,[2001:db8::1]'\n";
    let config = resolve(&written(file, &[], &[]).sources).1.unwrap();
    assert_eq!(config.hosts, ["lantern.example.org", "10.0.0.7", "2001:db8::1"]);
    assert!(!is_loopback(config.listen.ip()));
    let mapped = written("", &[], &[("listen", "--listen", "[::ffff:127.0.0.1]:0")]);
    assert!(is_loopback(resolve(&mapped.sources).1.unwrap().listen.ip()));
}

#[test]
fn a_missing_file_is_one_problem() {
    let sources = Sources {
        file: Some("nowhere/lantern.toml".into()),
        ..Sources::default()
    };
    let error = resolve(&sources).1.unwrap_err();
    assert_eq!(error.to_string(), "the configuration has 1 problem");
    assert!(
        error.problems[0]
            .to_string()
            .starts_with("flag --config: nowhere/lantern.toml: cannot be read")
    );
}

#[test]
fn systemd_names_the_data_directory() {
    let sources = Sources {
        env: vec![("STATE_DIRECTORY".into(), "/var/lib/lantern:/var/lib/other".into())],
        ..Sources::default()
    };
    let (resolved, config) = resolve(&sources);
    assert_eq!(config.unwrap().data_dir, Path::new("/var/lib/lantern"));
    assert!(resolved.show().contains("# env STATE_DIRECTORY"));
}

#[test]
fn show_tells_each_origin_and_no_secret() {
    let file = "data_dir = 'data'\n[limits]\nmemory = 1048576\nmessage_time = '250ms'\n";
    let env = [("LANTERN__BROKER__URL", "nats://bob:hunter2@localhost:4222")];
    let written = written(file, &env, &[("listen", "--listen", "[::1]:0")]);
    let (resolved, config) = resolve(&written.sources);
    config.unwrap();
    let shown = resolved
        .show()
        .replace(&format!("{}/", written.dir.path().display()), "");
    let shown: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let golden = include_str!("show.golden.txt");
    assert_eq!(
        shown.join("\n"),
        golden.trim_end(),
        "what `config show` prints has changed"
    );
}

#[test]
fn a_log_filter_is_shown_as_it_was_written() {
    let file = written("log.filter = 'info,x[{peer=a@o}]=debug'\n", &[], &[]);
    let shown = resolve(&file.sources).0.show();
    assert!(
        shown.contains("log.filter = \"info,x[{peer=a@o}]=debug\""),
        "{shown}"
    );
}

#[test]
fn what_show_and_reference_print_is_configuration() {
    let (resolved, _) = resolve(&Sources::default());
    let shown = written(&resolved.show(), &[], &[]);
    // A plugin directory that is named has to be there.
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
    for problem in problems(&written(&uncommented, &[], &[])) {
        let about_examples = problem.contains("cannot be read")
            || problem.contains("names servers")
            || problem.contains("contradicts")
            || problem.contains("has no effect");
        assert!(about_examples, "{problem}");
    }
}

/// From the documentation of minisign.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn keys_are_given_as_they_are_or_in_files_and_each_bad_one_is_named() {
    let good = written(
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
    let bad = written(
        &format!(
            "plugins.signatures = 'require'\nplugins.keys = '{KEY}, none.pub, RWshort, lantern.toml, {other}9'\n"
        ),
        &[],
        &[],
    );
    let found = problems(&bad).join("\n");
    let fix = "give the second line of a minisign .pub file, or the path of one; several with commas between";
    let expected = [
        "\"none.pub\" is not a public key of minisign, and as a file it cannot be read: No such file or directory (os error 2)",
        "\"RWshort\" is not a public key of minisign, and as a file it cannot be read: No such file or directory (os error 2)",
        "\"lantern.toml\" is not a public key of minisign",
        &format!("\"{other}9\" is not a public key of minisign, and as a file it cannot be read: No such file or directory (os error 2)"),
    ]
    .map(|message| format!("lantern.toml:2: plugins.keys: {message}; {fix}"));
    assert_eq!(found, expected.join("\n"));
    for shown in [
        found,
        resolve(&written("plugins.keys = 'x.pub, RWQAAEIySECRET'", &[], &[]).sources)
            .0
            .show(),
    ] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn the_host_and_the_tools_for_authors_have_the_same_limits() {
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
fn a_variable_that_misses_an_underscore_is_a_problem() {
    let written = written(
        "",
        &[("LANTERN_LIMITS__MEMORY", "1 MiB"), ("LANTERN_NATS_SERVER", "x")],
        &[],
    );
    assert_eq!(
        problems(&written),
        [
            "env LANTERN_LIMITS__MEMORY: is not a setting, and has no effect; did you mean LANTERN__LIMITS__MEMORY?"
        ]
    );
}
