//! What a job file may say, and how its faults are named.

use serde_json::json;

use super::*;

mod include;
mod job_file;
mod pipeline;

const CLASSIC: &str = r#"{
  "configuration-version": "2013-02-26", "job_id": "distci",
  "tasks": [
    {"type": "git-checkout", "params": {"repository": "https://example.org/distci.git",
      "ref": "refs/heads/master", "checkout-dir": "distci"}},
    {"type": "execute-shell", "params": {"working_directory": "distci",
      "script": "make tests\nmake\n", "nodelabels": ["linux"], "timeout": 600}},
    {"type": "publish-artifacts", "params": {"artifacts": ["distci/dist/*.egg", "distci/build.log"]}}
  ],
  "downstream_jobs": ["distci-nightly"] }"#;

fn job(tasks: &str) -> String {
    format!("{{\n\"job_id\": \"j\",\n\"tasks\": [\n{tasks}\n]\n}}")
}

fn shell(extra: &str) -> String {
    format!(r#"{{"type": "execute-shell", "params": {{"script": "true"}}{extra}}}"#)
}

fn problems(text: &str) -> Vec<String> {
    JobConfig::parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_classic_form_is_valid_unchanged() {
    let config = JobConfig::parse(CLASSIC).unwrap();
    let names: Vec<_> = config.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(
        names,
        ["git-checkout", "execute-shell", "publish-artifacts"]
    );
    assert_eq!(
        config.tasks[1].needs,
        [Need::all(config.tasks[0].name.clone())]
    );
    assert_eq!(config.tasks[1].timeout_seconds(), 600);
    assert_eq!(
        config.tasks[1].requires().to_string(),
        "execute-shell label:linux"
    );
    let stored = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<JobConfig>(&stored).unwrap(), config);
}

#[test]
fn the_stored_form_reads_as_a_job_file() {
    let config = JobConfig::parse(CLASSIC).unwrap();
    let stored = serde_json::to_string(&config).unwrap();
    assert_eq!(JobConfig::parse(&stored).unwrap(), config);
}

#[test]
fn comments_and_a_last_comma_are_allowed() {
    let text = job(&format!("// the only one\n{},", shell("")));
    assert!(JobConfig::parse(&text).is_ok());
}

#[test]
fn every_problem_is_named_with_line_and_path() {
    let text = job(&[
        r#"{"type": "execute-shel", "params": {}}"#,
        r#"{"type": "execute-shell", "params": {"script": 7}}"#,
        r#"{"type": "execute-shell", "params": {"script": "true", "timout": 3}, "nead": []}"#,
    ]
    .join(",\n"));
    assert_eq!(
        problems(&text),
        [
            "4:10: tasks[0].type: \"execute-shel\" is not a type of task (did you mean `execute-shell`?)",
            "5:48: tasks[1].params.script: invalid type: integer `7`, expected a string",
            "6:56: tasks[2].params.timout: unknown key (did you mean `timeout`?)",
            "6:70: tasks[2].nead: unknown key (did you mean `needs`?)",
        ]
    );
}

#[test]
fn broken_json_is_named_with_line_and_column() {
    assert_eq!(
        problems("{\n  \"job_id\": \"j\"\n  \"tasks\": []\n}").len(),
        1
    );
    assert!(problems("{\n  \"job_id\": \"j\"\n  \"tasks\": []\n}")[0].starts_with("2:"));
    assert_eq!(problems(""), ["1:1: the file is empty"]);
    assert_eq!(problems("[]"), ["1:1: a job file is a JSON object"]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(problems(&deep).len(), 1);
    assert!(problems(&" ".repeat(MAX_BYTES + 1))[0].contains("the limit is"));
}

#[test]
fn cycles_unknown_needs_and_duplicate_names_are_refused() {
    let cycle = job(&[
        shell(r#", "name": "a", "needs": ["b"]"#),
        shell(r#", "name": "b", "needs": ["a"]"#),
    ]
    .join(",\n"));
    assert_eq!(
        problems(&cycle),
        ["4:79: tasks[0].needs: tasks need each other: a needs b needs a"]
    );
    let own = job(&shell(r#", "name": "a", "needs": ["a"]"#));
    assert!(problems(&own)[0].contains("a needs a"));
    let unknown = job(&[
        shell(r#", "name": "compile""#),
        shell(r#", "needs": ["compille"]"#),
    ]
    .join(","));
    assert!(problems(&unknown)[0].contains("did you mean `compile`?"));
    let twice = job(&[shell(r#", "name": "a""#), shell(r#", "name": "a""#)].join(","));
    assert!(problems(&twice)[0].contains("named \"a\" already"));
    let keys =
        job(r#"{"type": "execute-shell", "type": "execute-shell", "params": {"script": ""}}"#);
    assert!(problems(&keys)[0].contains("twice"));
}

/// Tasks with one fault each, and a part of what is said of it.
const FAULTY_TASKS: &[(&str, &str)] = &[
    (
        r#"{"type": "git-checkout", "params": {"repository": "https://u:p@h/r"}}"#,
        "credentials",
    ),
    (
        r#"{"type": "git-checkout", "params": {"repository": "https://token@h/r"}}"#,
        "credentials",
    ),
    (
        r#"{"type": "git-checkout", "params": {"repository": "--upload-pack=x"}}"#,
        "address",
    ),
    (
        r#"{"type": "git-checkout", "params": {"repository": "r", "ref": "-x"}}"#,
        "not a ref",
    ),
    (
        r#"{"type": "git-checkout", "params": {"repository": "r", "checkout-dir": "../x"}}"#,
        "leaves",
    ),
    (
        r#"{"type": "git-checkout", "params": {"repository": "r", "checkout-dir": "/x"}}"#,
        "absolute",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"artifacts": ["../x"]}}"#,
        "leaves",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"artifacts": ["${version}"]}}"#,
        "no parameter",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"artifacts": ["a["]}}"#,
        "not a pattern",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {}}"#,
        "at least one pattern",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"junit": ["a["]}}"#,
        "not a pattern",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"tap": ["${version}"]}}"#,
        "no parameter",
    ),
    (
        r#"{"type": "publish-artifacts", "params": {"libtest": ["x"], "failed_tests": "warn"}}"#,
        "failed_tests",
    ),
    (
        r#"{"type": "execute-shell", "params": {"script": "a\u0000b"}}"#,
        "NUL",
    ),
    (
        r#"{"type": "execute-shell", "params": {"script": "x", "nodelabels": ["a b"]}}"#,
        "not a label",
    ),
    (
        r#"{"type": "execute-shell", "params": {"script": "x"}, "timeout": 0}"#,
        "between 1",
    ),
    (
        r#"{"type": "execute-shell", "params": {"script": "x"}, "env": {"DISTCI_X": "1"}}"#,
        "itself sets",
    ),
    (
        r#"{"type": "execute-shell", "params": {"script": "x"}, "env": {"a-b": "1"}}"#,
        "environment variable",
    ),
];

#[test]
fn ids_paths_and_credentials_are_checked() {
    for (task, part) in FAULTY_TASKS {
        let found = problems(&job(task));
        assert!(
            found.iter().any(|text| text.contains(part)),
            "{task}: {found:?}"
        );
    }
    assert!(problems(r#"{"job_id": "a/b", "tasks": []}"#)[0].contains("job_id"));
    let ssh = r#"{"type": "git-checkout", "params": {"repository": "ssh://git@h/r"}}"#;
    assert!(JobConfig::parse(&job(ssh)).is_ok());
}

#[test]
fn a_task_without_params_is_faulted_for_what_it_lacks_alone() {
    let found = problems(&job(r#"{"type": "execute-shell"}"#));
    assert_eq!(found, ["4:1: tasks[0].params: missing field `script`"]);
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    assert!(JobConfig::parse(&format!("\u{feff}{}", job(&shell("")))).is_ok());
}

#[test]
fn parameters_take_defaults_and_refuse_what_was_not_declared() {
    let parameter = |default: Option<&str>, choices: &[&str]| Parameter {
        default: default.map(|text| Scalar(text.to_owned())),
        choices: choices
            .iter()
            .map(|&text| Scalar(text.to_owned()))
            .collect(),
        ..Parameter::default()
    };
    let declared = BTreeMap::from([
        (
            "target".to_owned(),
            parameter(Some("debug"), &["debug", "release"]),
        ),
        ("version".to_owned(), parameter(None, &[])),
    ]);
    let given = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let values = resolve_parameters(&declared, &given(&[("version", "1")])).unwrap();
    assert_eq!(values["target"], "debug");
    let wrong = resolve_parameters(&declared, &given(&[("verison", "1"), ("target", "x")]));
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "the job has no parameter \"verison\" (did you mean `version`?); \
         parameter \"target\" is one of debug, release; parameter \"version\" needs a value"
    );
}

#[test]
fn references_are_filled_in_but_not_in_scripts() {
    let values = BTreeMap::from([("v".to_owned(), "1.2".to_owned())]);
    let params = json!({ "artifacts": ["out-${v}.tar"], "tap": ["${v}.tap"] });
    let publish = json!({ "type": "publish-artifacts", "params": params });
    let publish: Action = serde_json::from_value(publish).unwrap();
    let Action::PublishArtifacts(filled) = publish.resolve(&Scope::of(&values, None)).unwrap()
    else {
        panic!()
    };
    assert_eq!(filled.artifacts, ["out-1.2.tar"]);
    assert_eq!(filled.tap, ["1.2.tap"]);
    assert!(publish.resolve(&Scope::default()).is_err());
}
