//! What becomes of files that include each other.

use std::collections::BTreeMap;

use super::*;

/// Reads `job.json` among these files.
fn read(files: &[(&str, &str)]) -> Result<(JobConfig, String), Vec<String>> {
    let texts: BTreeMap<&str, &str> = files.iter().copied().collect();
    let mut files = Files::of("job.json", texts["job.json"]);
    while let Some(path) = files.wanted().map(str::to_owned) {
        let text = texts.get(path.as_str()).map(|text| (*text).to_owned());
        files.add(
            &path,
            text.ok_or_else(|| format!("there is no file {path}")),
        );
    }
    let problems =
        |problems: Vec<ConfigProblem>| problems.iter().map(ToString::to_string).collect();
    files.job().map_err(problems)
}

fn task(name: &str, script: &str) -> String {
    let params = format!(r#""params": {{"script": "{script}"}}"#);
    format!(r#"{{"type": "execute-shell", "name": "{name}", {params}}}"#)
}

/// The names of the tasks with their scripts.
fn scripts(job: &JobConfig) -> Vec<String> {
    let script = |task: &TaskConfig| {
        let Action::ExecuteShell(shell) = &task.action else {
            panic!("another kind of task");
        };
        format!("{} {}", task.name, shell.script)
    };
    job.tasks.iter().map(script).collect()
}

#[test]
fn the_file_that_includes_wins() {
    let root = format!(
        r#"{{"job_id": "j", "include": ["ci/a.json"], "env": {{"A": "root", "B": "root"}},
            "priority": 2, "post": [{}], "tasks": [{}, {}]}}"#,
        task("after", "root"),
        task("two", "root"),
        task("three", "root"),
    );
    let fragment = format!(
        r#"{{ // comments are allowed here too
            "env": {{"B": "a", "C": "a"}}, "parameters": {{"p": {{"default": "1"}}}},
            "priority": 7, "description": "of a", "downstream_jobs": ["k"],
            "triggers": [{{"cron": "@daily"}}], "tasks": [{}, {}], }}"#,
        task("one", "a"),
        task("two", "a"),
    );
    let (job, text) = read(&[("job.json", &root), ("ci/a.json", &fragment)]).unwrap();
    assert_eq!(scripts(&job), ["one a", "two root", "three root"]);
    let env: Vec<_> = job
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(env, ["A=root", "B=root", "C=a"]);
    assert_eq!(job.priority.unwrap().get(), 2);
    assert_eq!(job.description.as_deref(), Some("of a"));
    assert_eq!((job.parameters.len(), job.triggers.len()), (1, 1));
    assert_eq!((job.post.len(), job.downstream_jobs.len()), (1, 1));
    // Without needs the order is that of the whole list.
    assert_eq!(job.tasks[2].needs, [Need::all("two".parse().unwrap())]);
    assert_eq!(JobConfig::parse(&text).unwrap(), job);
}

#[test]
fn a_fragment_counts_once_and_is_found_from_where_it_is_named() {
    let (job, _) = read(&[
        (
            "job.json",
            r#"{"job_id": "j", "include": ["ci/a.json", "b.json"]}"#,
        ),
        (
            "ci/a.json",
            &format!(
                r#"{{"include": ["../c.json"], "tasks": [{}]}}"#,
                task("a", "a")
            ),
        ),
        (
            "b.json",
            &format!(
                r#"{{"include": ["./c.json"], "tasks": [{}]}}"#,
                task("b", "b")
            ),
        ),
        ("c.json", &format!(r#"{{"tasks": [{}]}}"#, task("c", "c"))),
    ])
    .unwrap();
    assert_eq!(scripts(&job), ["c c", "a a", "b b"]);
}

#[test]
fn problems_name_their_file_and_the_place_in_it() {
    let root = format!(
        "{{\"job_id\": \"j\", \"include\": [\"ci/a.json\"], \"tasks\": [\n{}]}}",
        r#"{"type": "execute-shell", "params": {"script": "", "timeouts": 3}}"#
    );
    let fragment = format!(
        "{{\"tasks\": [\n{},\n{}]}}",
        task("a", ""),
        r#"{"type": "execute-shel", "params": {}, "name": "b"}"#
    );
    assert_eq!(
        read(&[("job.json", &root), ("ci/a.json", &fragment)]).unwrap_err(),
        [
            "2:52: tasks[0].params.timeouts: unknown key (did you mean `timeout`?)",
            "ci/a.json:3:10: tasks[1].type: \"execute-shel\" is not a type of task \
                (did you mean `execute-shell`?)",
        ]
    );
}

/// Other files than the job's own, and a part of what is said first.
const FAULTY: &[(&[(&str, &str)], &str)] = &[
    (&[], "1:29: include[0]: there is no file a.json"),
    (&[("a.json", "{")], "a.json:1:"),
    (&[("a.json", "")], "a.json:1:1: the file is empty"),
    (
        &[("a.json", "[]")],
        "a.json:1:1: a fragment is a JSON object",
    ),
    (
        &[("a.json", r#"{"env": []}"#)],
        "a.json:1:9: env: expected an object",
    ),
    (
        &[("a.json", r#"{"tasks": {}}"#)],
        "a.json:1:11: tasks: expected a list",
    ),
    (
        &[("a.json", r#"{"include": "b.json"}"#)],
        "a.json:1:13: include: expected a list of paths",
    ),
    (
        &[("a.json", r#"{"job_id": "j"}"#)],
        "a.json:1:2: job_id: only the job file itself has",
    ),
    (&[("a.json", r#"{"taks": []}"#)], "did you mean `tasks`?"), // spelling:ignore-line
    (
        &[("a.json", r#"{"env": {"A": "1", "A": "2"}}"#)],
        "a.json:1:20: env.A: the key is there twice",
    ),
    (
        &[
            ("a.json", r#"{"include": ["b.json"]}"#),
            ("b.json", r#"{"include": ["a.json"]}"#),
        ],
        "b.json:1:14: include[0]: files include each other: a.json includes b.json includes a.json",
    ),
    (
        &[("a.json", r#"{"include": ["job.json"]}"#)],
        "files include each other: job.json includes a.json includes job.json",
    ),
    (
        &[("a.json", r#"{"include": ["../b.json"]}"#)],
        "leaves the folder of the job file",
    ),
    (&[("a.json", r#"{"include": ["/b.json"]}"#)], "is absolute"),
    (
        &[("a.json", r#"{"include": ["http://x/b.json"]}"#)],
        "is an address",
    ),
];

#[test]
fn what_cannot_be_included_is_named() {
    for (others, expected) in FAULTY {
        let root = format!(
            r#"{{"job_id": "j", "include": ["a.json"], "tasks": [{}]}}"#,
            task("t", "")
        );
        let files = [&[("job.json", root.as_str())], *others].concat();
        let problems = read(&files).unwrap_err();
        assert!(problems[0].contains(expected), "{expected}: {problems:?}");
    }
}

#[test]
fn two_fragments_may_not_name_a_task_alike() {
    let fragment = format!(r#"{{"tasks": [{}]}}"#, task("t", ""));
    let root = r#"{"job_id": "j", "include": ["a.json", "b.json"]}"#;
    let problems = read(&[
        ("job.json", root),
        ("a.json", &fragment),
        ("b.json", &fragment),
    ]);
    let problems = problems.unwrap_err();
    assert!(problems[0].starts_with("b.json:1:"), "{problems:?}");
    assert!(problems[0].contains("named \"t\" already"), "{problems:?}");
}

#[test]
fn depth_number_and_size_are_bounded() {
    let chain = |length: usize| {
        let link = |n: usize| {
            (
                format!("{n}.json"),
                format!(r#"{{"include": ["{}.json"]}}"#, n + 1),
            )
        };
        let mut files: Vec<(String, String)> = (1..length).map(link).collect();
        files.push((
            format!("{length}.json"),
            format!(r#"{{"tasks": [{}]}}"#, task("t", "")),
        ));
        let root = r#"{"job_id": "j", "include": ["1.json"]}"#.to_owned();
        files.push(("job.json".to_owned(), root));
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (&**path, &**text))
            .collect();
        read(&files)
    };
    assert!(chain(10).is_ok());
    assert!(chain(11).unwrap_err()[0].contains("10.json:1:14: include[0]: more than 10 files"));

    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("{n}.json")).collect();
        let include: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let tasks = task("t", "");
        let root = format!(
            r#"{{"job_id": "j", "include": [{}], "tasks": [{tasks}]}}"#,
            include.join(",")
        );
        let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), "{}")).collect();
        files.push(("job.json", &root));
        read(&files)
    };
    assert!(many(50).is_ok());
    assert!(many(51).unwrap_err()[0].contains("more than 50 files"));

    let half = format!("{{}}{}", " ".repeat(MAX_BYTES / 2));
    let root = r#"{"job_id": "j", "include": ["a.json", "b.json", "c.json"]}"#;
    let files = [
        ("job.json", root),
        ("a.json", &half),
        ("b.json", &half),
        ("c.json", &half),
    ];
    assert!(read(&files).unwrap_err()[0].contains("the limit is 524288"));
}

#[test]
fn who_has_no_files_says_who_resolves() {
    let problems = problems(r#"{"job_id": "j", "include": ["a.json"]}"#);
    assert!(problems[0].contains("`distci job set`"), "{problems:?}");
    let (job, text) = read(&[(
        "job.json",
        &job(&shell("")).replace("\"job_id\"", "\"include\": [], \"job_id\""),
    )])
    .unwrap();
    assert_eq!(JobConfig::parse(&text).unwrap(), job);
}
