use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder with the files that the sample names.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "token",
        "s3-secret-key",
        "zookeeper-password",
        "github-secret",
        "gitlab-secret",
        "gitea-secret",
        "bitbucket-secret",
        "ca.pem",
        "frontend.pem",
        "frontend.key",
    ] {
        let file = folder.path().join(name);
        fs::write(&file, format!("the-{name}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let folder = folder();
    parse_in(folder.path(), text)
}

fn parse_in(folder: &Path, text: &str) -> Result<Config, Vec<String>> {
    let place = folder.display().to_string();
    Config::parse(text, folder, &nothing).map_err(|problems| {
        let shown = problems.iter().map(ToString::to_string);
        shown.map(|line| line.replace(&place, "FOLDER")).collect()
    })
}

/// The sample with every line of a key that it shows commented out in force.
fn whole_sample() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    };
    SAMPLE.lines().map(|line| uncomment(line) + "\n").collect()
}

const CLUSTER: &str = "
[zookeeper]
hosts = ['zk']
chroot = '/distci'
[s3]
endpoints = ['http://rgw:7480']
bucket = 'b'
access-key = 'a'
secret-key-file = 's3-secret-key'
";

#[test]
fn the_sample_parses_as_it_is_and_with_everything_in_force() {
    let plain = parse(SAMPLE).unwrap();
    let cluster = plain.cluster.unwrap();
    assert_eq!(plain.listen, [LISTEN]);
    assert_eq!(plain.token.unwrap().reveal(), "the-token");
    assert_eq!(
        (cluster.zookeeper.identity, cluster.zookeeper.tls),
        (None, None)
    );
    assert_eq!(cluster.s3.secret_key.reveal(), "the-s3-secret-key");

    let whole = parse(&whole_sample()).unwrap().cluster.unwrap();
    let identity = whole.zookeeper.identity.unwrap();
    assert_eq!(identity.password.reveal(), "the-zookeeper-password");
    assert!(
        whole
            .zookeeper
            .tls
            .unwrap()
            .key
            .unwrap()
            .ends_with("frontend.key")
    );
    // What the sample shows commented out is what holds without it.
    assert_eq!(
        (cluster.s3.region, cluster.s3.signed_urls),
        (whole.s3.region, whole.s3.signed_urls)
    );
    assert_eq!(
        cluster.zookeeper.session_timeout,
        whole.zookeeper.session_timeout
    );
}

#[test]
fn every_key_is_in_the_sample() {
    let whole = whole_sample();
    let source = include_str!("../config.rs");
    let asked = source.split("section.").chain(source.split("top."));
    let quoted = asked.filter_map(|call| {
        let (function, rest) = call.split_once("(\"")?;
        let reads = ["text", "texts", "needed", "needed_texts", "number", "flag"];
        reads.contains(&function).then(|| rest.split('"').next())?
    });
    let mut count = 0;
    for key in quoted {
        assert!(
            whole.contains(&format!("\n{key} = ")),
            "{key} is not in the sample"
        );
        count += 1;
    }
    assert!(
        count >= 17,
        "{count} keys only: the test does not see them any more"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "
listne = ['127.0.0.1:1']
token-file = 'absent'
[zookeeper]
hosts = ['zk:x', 7, 'zk']
chroot = 'distci'
sessiontimeout = 10
password = 'hunter2'
[s3]
endpoints = []
bucket = ''
access-key = 'a'
secret-key = 'hunter2'
signed-urls = 'yes'
";
    let problems = parse(text).unwrap_err();
    let expected = [
        "2:1: listne: unknown key (did you mean `listen`?)",
        "3:1: token-file: FOLDER/absent: No such file or directory (os error 2) (all frontends",
        "5:10: zookeeper.hosts: expected a host and a port",
        "5:18: zookeeper.hosts: expected a text in quotes, found integer",
        "6:1: zookeeper.chroot: expected the path of a node",
        "7:1: zookeeper.sessiontimeout: unknown key (did you mean `session-timeout`?)",
        "8:1: zookeeper.password: a secret does not belong into the configuration (write it",
        "9:2: s3.secret-key-file: is missing (or give AWS_SECRET_ACCESS_KEY)",
        "10:1: s3.endpoints: expected a list of texts",
        "11:1: s3.bucket: is empty",
        "13:1: s3.secret-key: a secret does not belong into the configuration",
        "14:1: s3.signed-urls: expected true or false, found string",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(
            problem.starts_with(expected),
            "{problem:?} is not {expected:?}"
        );
        assert!(!problem.contains("hunter2"), "{problem:?} shows a secret");
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let problems = parse("listen = ['a'\n[s3\n").unwrap_err();
    assert!(
        problems[0].starts_with("2:") || problems[0].starts_with("1:"),
        "{problems:?}"
    );
    assert!(parse("listen = 1\nlisten = 2\n").unwrap_err()[0].starts_with("2:1: "));
}

#[test]
fn parts_that_belong_together_come_together() {
    let one = |text: &str| {
        let problems = parse(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    };
    let with = |text: &str| format!("token-file = 'token'\n{CLUSTER}{text}");
    assert!(parse(&with("")).is_ok());
    assert!(one(CLUSTER).contains("token-file: is missing"));
    let half = CLUSTER.split("[s3]").next().unwrap();
    assert!(one(&format!("token-file = 'token'{half}")).contains("a cluster needs `[s3]`, too"));
    for (line, message) in [
        ("user = 'u'", "zookeeper.password-file: is missing"),
        (
            "password-file = 'zookeeper-password'",
            "zookeeper.user: is missing",
        ),
        (
            "[zookeeper.tls]\nca = 'ca.pem'\nkey = 'frontend.key'",
            "zookeeper.tls.certificate: `key` needs it",
        ),
        (
            "[zookeeper.tls]\nca = 'absent'",
            "zookeeper.tls.ca: FOLDER/absent: No such file",
        ),
        (
            "session-timeout = 60",
            "session-timeout: expected a number from 4 to 40",
        ),
    ] {
        let text = with("").replace("[s3]", &format!("{line}\n[s3]"));
        assert!(one(&text).contains(message), "{line}: {}", one(&text));
    }
}

#[test]
fn the_environment_gives_what_the_file_does_not() {
    let folder = folder();
    let text = format!("token-file = 'token'\n{CLUSTER}");
    let text = text.replace("access-key = 'a'\nsecret-key-file = 's3-secret-key'\n", "");
    let problems = parse(&text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    let environment = |name: &str| Some(format!("of {name}"));
    let s3 = |text: &str| {
        let config = Config::parse(text, folder.path(), &environment).unwrap();
        config.cluster.unwrap().s3
    };
    assert_eq!(s3(&text).access_key, "of AWS_ACCESS_KEY_ID");
    assert_eq!(s3(&text).secret_key.reveal(), "of AWS_SECRET_ACCESS_KEY");
    // What is written counts.
    assert_eq!(
        s3(&format!("token-file = 'token'\n{CLUSTER}")).access_key,
        "a"
    );
}

#[test]
fn secrets_that_others_can_read_are_noticed_and_never_shown() {
    let folder = folder();
    let file = folder.path().join("s3-secret-key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let config = parse_in(folder.path(), &format!("token-file = 'token'\n{CLUSTER}")).unwrap();
    assert_eq!(config.exposed, [file]);
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("the-s3-secret-key") && !shown.contains("the-token"),
        "{shown}"
    );
}

#[test]
fn hosts_have_ports() {
    for (written, meant) in [
        ("zk", "zk:2181"),
        ("zk:1", "zk:1"),
        ("10.0.0.1:2182", "10.0.0.1:2182"),
        ("[::1]", "[::1]:2181"),
        ("[::1]:5", "[::1]:5"),
    ] {
        assert_eq!(host(written).ok().as_deref(), Some(meant));
    }
    for nonsense in ["", ":1", "zk:", "zk:0", "zk:70000", "zk/1", "zk zk", "a,b"] {
        assert!(host(nonsense).is_err(), "{nonsense:?} was accepted");
    }
}

#[test]
fn without_a_cluster_everything_has_a_default() {
    let config = parse("").unwrap();
    assert_eq!((config.cluster, config.token), (None, None));
    assert_eq!(config.listen, [LISTEN]);
}
