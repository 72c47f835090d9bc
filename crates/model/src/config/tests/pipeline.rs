//! Matrices, conditions, retries and references in a job file.

use super::super::pipeline::Need;
use super::*;

fn one(extra: &str) -> String {
    job(&shell(extra))
}

fn cells_of(matrix: &str) -> Vec<String> {
    let text = one(&format!(r#", "name": "t", "matrix": {matrix}"#));
    let config = JobConfig::parse(&text).unwrap();
    let flat = config.flat();
    flat.tasks
        .iter()
        .map(|task| task.name.to_string())
        .collect()
}

#[test]
fn a_matrix_has_a_cell_for_each_combination() {
    assert_eq!(
        cells_of(r#"{"os": ["linux", "mac"], "arch": ["arm", "x86"]}"#),
        ["t.arm.linux", "t.arm.mac", "t.x86.linux", "t.x86.mac"]
    );
    let excluded = r#"{"os": ["linux", "mac"], "n": [1, 2], "exclude": [{"os": "mac", "n": 1}]}"#;
    assert_eq!(cells_of(excluded), ["t.1.linux", "t.2.linux", "t.2.mac"]);
    let included = r#"{"os": ["linux", "mac"],
        "include": [{"os": "mac", "xcode": "16"}, {"os": "bsd"}]}"#;
    assert_eq!(cells_of(included), ["t.linux", "t.mac.16", "t.bsd"]);
    assert_eq!(cells_of(r#"{"v": ["a/b", true]}"#), ["t.a-b", "t.true"]);
    assert_eq!(cells_of(r#"{"include": [{"os": "bsd"}]}"#), ["t.bsd"]);
}

#[test]
fn the_values_of_a_cell_fill_its_labels_and_environment() {
    let text = job(
        r#"{"type": "execute-shell", "name": "t", "matrix": {"os": ["linux", "mac"]},
            "params": {"script": "true", "nodelabels": ["${os}"]}, "env": {"X": "on ${os}"},
            "locks": ["${os}-farm"]}"#,
    );
    let flat = JobConfig::parse(&text).unwrap().flat();
    assert_eq!(
        flat.tasks[1].requires().to_string(),
        "execute-shell label:mac"
    );
    assert_eq!(flat.tasks[1].env["X"], "on mac");
    assert_eq!(flat.tasks[1].env["os"], "mac");
    assert_eq!(flat.tasks[1].locks[0].name, "mac-farm");
}

#[test]
fn cells_need_cells() {
    let text = job(&[
        shell(r#", "name": "b", "matrix": {"os": ["linux", "mac"], "n": [1, 2]}"#),
        shell(
            r#", "name": "t", "matrix": {"os": ["linux", "mac"]},
               "needs": [{"task": "b", "cell": {"os": "${os}"}}]"#,
        ),
        shell(r#", "name": "all""#),
    ]
    .join(","));
    let config = JobConfig::parse(&text).unwrap();
    let flat = config.flat();
    let needs = |task: usize| -> Vec<String> {
        let needs = flat.tasks[task].needs.iter();
        needs.map(|need| need.task.to_string()).collect()
    };
    assert_eq!(needs(4), ["b.1.linux", "b.2.linux"]);
    assert_eq!(needs(6), ["t.linux", "t.mac"]);
    assert_eq!(flat.flat(), flat, "what is flat stays so");
    let stored = serde_json::to_string(&config).unwrap();
    assert_eq!(JobConfig::parse(&stored).unwrap(), config);
    assert_eq!(
        config.tasks[2].needs,
        [Need::all("t".parse().unwrap())],
        "what its owner sees has no cells"
    );
}

/// Jobs with one fault each, and a part of what is said of it.
const FAULTY: &[(&str, &str)] = &[
    (r#", "matrix": {"a": []}"#, "no value"),
    (r#", "matrix": {"a": [1, 1]}"#, "there twice"),
    (r#", "matrix": {"a": [1.5]}"#, "expected a text, an integer"),
    (r#", "matrix": {"a-b": [1]}"#, "environment variable"),
    (r#", "matrix": {"BUILD_ID": [1]}"#, "itself sets"),
    (
        r#", "matrix": {"a": [1], "exclude": [{"a": 1}]}"#,
        "no cell is left",
    ),
    (
        r#", "matrix": {"os": [1], "exclude": [{"so": 1}]}"#,
        "no such axis",
    ),
    (
        r#", "matrix": {"a": ["x/y", "x-y"]}"#,
        "named \"execute-shell.x-y\" already",
    ),
    (r#", "env": {"A": "${os}"}"#, "no parameter \"os\""),
    (r#", "env": {"A": "${event.shaa}"}"#, "did you mean `sha`?"),
    (
        r#", "env": {"A": "${tasks.b.v}"}"#,
        "no task \"b\" comes before",
    ),
    (r#", "when": "sometimes""#, "expected `on_success`"),
    (r#", "when": {"refs": ["a["]}"#, "not a pattern"),
    (
        r#", "when": {"parameters": {"x": "1"}}"#,
        "no parameter \"x\"",
    ),
    (r#", "when": {"ref": ["a"]}"#, "did you mean `refs`?"),
    (r#", "retry": 11"#, "the limit is 10"),
    (r#", "retry": {"max": 1, "on": []}"#, "names no end"),
    (r#", "retry": {"max": 1, "backoff": "soon"}"#, "retry"),
    (
        r#", "needs": [{"task": "execute-shell", "cell": {}}]"#,
        "needs execute-shell",
    ),
];

#[test]
fn faults_are_named() {
    for (extra, part) in FAULTY {
        let found = problems(&one(extra));
        let named = found.iter().any(|text| text.contains(part));
        assert!(named, "{extra}: {found:?}");
    }
}

#[test]
fn a_matrix_of_a_million_cells_is_refused_before_it_is_made() {
    let axis = (0..1000)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let text = one(&format!(r#", "matrix": {{"a": [{axis}], "b": [{axis}]}}"#));
    assert!(problems(&text)[0].contains("1000000 cells; the limit is 256"));
    let many: Vec<String> = (0..15).map(|n| format!(r#""a{n}": [{axis}]"#)).collect();
    let text = one(&format!(r#", "matrix": {{{}}}"#, many.join(",")));
    assert!(problems(&text)[0].contains("far more cells"));
}

#[test]
fn a_cell_that_has_no_counterpart_is_named_once() {
    let text = job(&[
        shell(r#", "name": "b", "matrix": {"os": ["linux"]}"#),
        shell(
            r#", "name": "t", "matrix": {"os": ["linux", "mac", "bsd"]},
               "needs": [{"task": "b", "cell": {"os": "${os}"}}]"#,
        ),
    ]
    .join(","));
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("b has no such cell"), "{found:?}");
}

#[test]
fn values_of_parameters_have_types() {
    let text = r#"{"job_id": "j", "tasks": [{"type": "approve"}], "parameters": {
        "on": {"type": "boolean", "default": true}, "n": {"type": "integer", "choices": [1, 2]}}}"#;
    let config = JobConfig::parse(text).unwrap();
    let resolve = |on: &str, n: &str| {
        let given = [
            ("on".to_owned(), on.to_owned()),
            ("n".to_owned(), n.to_owned()),
        ]
        .into();
        resolve_parameters(&config.parameters, &given)
    };
    assert!(resolve("false", "2").is_ok());
    let wrong = resolve("yes", "3").unwrap_err().to_string();
    assert!(
        wrong.contains("neither true nor false") && wrong.contains("one of 1, 2"),
        "{wrong}"
    );
    let text = text.replace("\"default\": true", "\"default\": 7");
    assert!(problems(&text)[0].contains("neither true nor false"));
}

#[test]
fn triggers_are_read_by_the_key_that_is_there() {
    let with = |trigger: &str| {
        format!(r#"{{"job_id": "j", "tasks": [{{"type": "approve"}}], "triggers": [{trigger}]}}"#)
    };
    for good in [
        r#"{"on": "push", "repository": "https://h/a/b"}"#,
        r#"{"on": ["push", "tag"], "repository": "h/a/b", "refs": ["main", "!x"]}"#,
        r#"{"poll": "5m", "repository": "/srv/a.git"}"#,
        r#"{"cron": "0 4 * * *", "catch_up": "none"}"#,
    ] {
        let config = JobConfig::parse(&with(good)).unwrap();
        let stored = serde_json::to_string(&config).unwrap();
        assert_eq!(JobConfig::parse(&stored).unwrap(), config, "{good}");
    }
    for (bad, part) in [
        (r#"{"repository": "h/a/b"}"#, "`on`, `cron` or `poll`"),
        (
            r#"{"on": "push", "repo": "h/a/b"}"#,
            "did you mean `repository`?",
        ),
        (
            r#"{"poll": "soon", "repository": "r"}"#,
            "no length of time",
        ),
        (
            r#"{"cron": "0 4 * * *", "parameters": {"x": "1"}}"#,
            "no parameter \"x\"",
        ),
    ] {
        let found = problems(&with(bad)).join("; ");
        assert!(found.contains(part), "{bad}: {found}");
    }
}
