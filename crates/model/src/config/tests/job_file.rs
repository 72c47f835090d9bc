//! What a job lets its file in a repository say.

use super::*;

fn stored(more: &str) -> JobConfig {
    let text = format!(
        r#"{{"job_id": "j", "parameters": {{"p": {{"default": "1"}}}}, "env": {{"A": "job", "B": "job"}},
            "priority": 4, "job_file": {{"repository": "https://example.org/r.git"{more}}}}}"#
    );
    JobConfig::parse(&text).unwrap()
}

fn read(stored: &JobConfig, text: &str) -> Result<JobConfig, Vec<String>> {
    let job = Files::of(".distci.json", text).job_of(stored);
    let problems = |problems: Vec<ConfigProblem>| -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    };
    let (job, text) = job.map_err(problems)?;
    // Who reads what was handed on comes to the same.
    let again = Files::of("job.json", &text).job_of(stored);
    assert_eq!(again.unwrap(), (job.clone(), text));
    Ok(job)
}

#[test]
fn the_file_says_what_and_the_job_says_whether() {
    let text = format!(
        r#"{{"description": "of the file", "env": {{"B": "file ${{p}}"}}, "tasks": [{}], "post": [{}]}}"#,
        shell(r#", "name": "build", "env": {"COMMIT": "${tasks.job-file.commit}"}"#),
        shell(r#", "name": "tell""#),
    );
    let stored = stored("");
    let job = read(&stored, &text).unwrap();
    assert_eq!(job.description.as_deref(), Some("of the file"));
    let env: Vec<_> = job
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(env, ["A=job", "B=file ${p}"]);
    assert_eq!((job.priority, job.parameters.len()), (stored.priority, 1));
    assert_eq!(job.job_file, stored.job_file);
}

#[test]
fn reading_comes_before_all_else() {
    let first = stored("").flat();
    let names = |job: &JobConfig| -> Vec<String> {
        let needs = |task: &TaskConfig| {
            task.needs
                .iter()
                .map(|need| need.task.to_string())
                .collect()
        };
        let line = |task: &TaskConfig| {
            let needs: Vec<String> = needs(task);
            format!("{}: {}", task.name, needs.join(" "))
        };
        job.tasks.iter().map(line).collect()
    };
    assert_eq!(names(&first), ["job-file: "]);
    assert_eq!(first.tasks[0].requires().to_string(), "job-file");
    assert_eq!(first.flat(), first);
    let text = format!(
        r#"{{"tasks": [{}, {}, {}], "post": [{}]}}"#,
        shell(r#", "name": "a""#),
        shell(r#", "name": "b""#),
        shell(r#", "name": "c", "needs": [], "matrix": {"x": [1, 2]}"#),
        shell(r#", "name": "d""#),
    );
    let flat = read(&stored(""), &text).unwrap().flat();
    assert_eq!(
        names(&flat),
        [
            "job-file: ",
            "a: job-file",
            "b: a",
            "c.1: job-file",
            "c.2: job-file",
            "d: a b c.1 c.2",
        ]
    );
    assert_eq!(flat.flat(), flat);
}

#[test]
fn what_is_read_is_of_the_event_that_began_the_build() {
    let action = &stored("").flat().tasks[0].action;
    let none = BTreeMap::new();
    for (facts, expected) in [
        (&[][..], "HEAD"),
        (
            &[
                ("repository", "example.org/r"),
                ("sha", "abc"),
                ("ref", "refs/heads/x"),
            ],
            "abc",
        ),
        (
            &[("repository", "example.org/r"), ("ref", "refs/heads/x")],
            "refs/heads/x",
        ),
        (
            &[("repository", "example.org/other"), ("sha", "abc")],
            "HEAD",
        ),
    ] {
        let facts = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let event = crate::event::Event {
            source: crate::event::Source::Github,
            kind: crate::event::EventKind::Push,
            delivery: None,
            facts: facts.collect(),
            paths: None,
            labels: Vec::new(),
        };
        let Action::JobFile(file) = action.resolve(&Scope::of(&none, Some(&event))).unwrap() else {
            panic!("another kind of task");
        };
        assert_eq!(file.wanted(), expected);
    }
}

/// What a job allows, what a file adds to one task, and a part of what is said.
const POLICY: &[(&str, &str, &str)] = &[
    (
        "",
        r#""params": {"script": "", "nodelabels": ["linux"]}"#,
        "1:97: tasks[0].params.nodelabels[0]: the job does not allow \"linux\" (it would have to be among `labels` of its `job_file`)",
    ),
    (
        r#", "labels": ["lin*"]"#,
        r#""params": {"script": "", "nodelabels": ["linux"]}"#,
        "",
    ),
    (
        r#", "labels": ["linux"]"#,
        r#""params": {"script": "", "nodelabels": ["linux", "big"]}"#,
        "does not allow \"big\"",
    ),
    // Of a matrix, each cell counts.
    (
        r#", "labels": ["arm*"]"#,
        r#""matrix": {"cpu": ["arm64", "x86"]}, "params": {"script": "", "nodelabels": ["${cpu}"]}"#,
        "does not allow \"x86\"",
    ),
    (
        r#", "labels": ["arm*", "x86"]"#,
        r#""matrix": {"cpu": ["arm64", "x86"]}, "params": {"script": "", "nodelabels": ["${cpu}"]}"#,
        "",
    ),
    (
        "",
        r#""locks": ["deploy"], "params": {"script": ""}"#,
        "tasks[0].locks[0]: the job does not allow \"deploy\" (it would have to be among `locks`",
    ),
    (
        r#", "locks": ["deploy"]"#,
        r#""locks": ["deploy"], "params": {"script": ""}"#,
        "",
    ),
    (
        r#", "locks": ["lab-*"]"#,
        r#""locks": ["${p}"], "params": {"script": ""}"#,
        "does not allow \"${p}\"",
    ),
    (
        r#", "locks": ["lab-*"]"#,
        r#""locks": ["lab-${p}"], "params": {"script": ""}"#,
        "",
    ),
    (
        "",
        r#""priority": 3, "params": {"script": ""}"#,
        "tasks[0].priority: 3 is more urgent than the job (at most 4, its `priority`)",
    ),
    ("", r#""priority": 9, "params": {"script": ""}"#, ""),
    (
        "",
        r#""name": "job-file", "params": {"script": ""}"#,
        "named \"job-file\" already",
    ),
];

#[test]
fn a_task_asks_for_no_more_than_the_job_lets_it() {
    for (allowed, task, expected) in POLICY {
        let text =
            format!(r#"{{"tasks": [{{"type": "execute-shell", "env": {{"X": "1"}}, {task}}}]}}"#);
        let said = read(&stored(allowed), &text).err().unwrap_or_default();
        assert_eq!(
            said.is_empty(),
            expected.is_empty(),
            "{allowed} {task}: {said:?}"
        );
        let first = said.first().cloned().unwrap_or_default();
        assert!(first.contains(expected), "{allowed} {task}: {said:?}");
    }
}

/// What else a file has, and a part of what is said.
const KEYS: &[(&str, &str)] = &[
    (r#""job_id": "j""#, ""),
    (
        r#""job_id": "k""#,
        "1:12: job_id: the file is read for the job \"j\"",
    ),
    (
        r#""parameters": {}"#,
        "parameters: only the stored job has this key",
    ),
    (
        r#""triggers": []"#,
        "triggers: only the stored job has this key",
    ),
    (
        r#""concurrency": {}"#,
        "concurrency: only the stored job has this key",
    ),
    (
        r#""status": {}"#,
        "status: only the stored job has this key",
    ),
    (
        r#""job_file": {"repository": "x"}"#,
        "job_file: only the stored job has this key",
    ),
    (
        r#""priority": 3"#,
        "1:14: priority: 3 is more urgent than the job",
    ),
    (r#""priority": 6"#, ""),
    (
        r#""downstream_jobs": ["k"]"#,
        "1:22: downstream_jobs[0]: the job does not allow \"k\"",
    ),
    (r#""include": ["a.json"]"#, "include[0]: not resolved"),
    (r#""steps": []"#, "steps: unknown key"),
];

#[test]
fn what_is_the_jobs_own_stays_with_it() {
    for (key, expected) in KEYS {
        let text = format!(r#"{{{key}, "tasks": [{}]}}"#, shell(""));
        let said = read(&stored(""), &text).err().unwrap_or_default();
        assert_eq!(said.is_empty(), expected.is_empty(), "{key}: {said:?}");
        let first = said.first().cloned().unwrap_or_default();
        assert!(first.contains(expected), "{key}: {said:?}");
    }
    let text = format!(
        r#"{{"downstream_jobs": ["k-x"], "tasks": [{}]}}"#,
        shell("")
    );
    let mut own = stored(r#", "downstream": ["k-*"]"#);
    own.downstream_jobs = JobConfig::parse(
        &job(&shell("")).replace("\"job_id\"", "\"downstream_jobs\": [\"own\"], \"job_id\""),
    )
    .unwrap()
    .downstream_jobs;
    let triggered = read(&own, &text).unwrap().downstream_jobs;
    let names: Vec<_> = triggered
        .iter()
        .map(|downstream| downstream.job.as_str())
        .collect();
    assert_eq!(names, ["k-x", "own"]);
}

#[test]
fn a_job_that_reads_a_file_is_checked_too() {
    let with = |file: &str, more: &str| {
        problems(&format!(r#"{{"job_id": "j", "job_file": {file}{more}}}"#))
    };
    for (file, more, expected) in [
        ("{}", "", "missing field `repository`"),
        (r#"{"repository": "https://u:p@h/r"}"#, "", "credentials"),
        (r#"{"repository": "r", "path": "../x"}"#, "", "leaves"),
        (r#"{"repository": "r", "path": ""}"#, "", "names no file"),
        (r#"{"repository": "r", "ref": "-x"}"#, "", "not a ref"),
        (
            r#"{"repository": "r", "label": []}"#,
            "",
            "did you mean `labels`?",
        ),
        (
            r#"{"repository": "r", "labels": [""]}"#,
            "",
            "between 1 and 256",
        ),
        (r#"{"repository": "r${q}"}"#, "", "no parameter \"q\""),
    ] {
        let said = with(file, more);
        assert!(said[0].contains(expected), "{file}: {said:?}");
    }
    let both = with(
        r#"{"repository": "r"}"#,
        &format!(r#", "tasks": [{}]"#, shell("")),
    );
    assert!(both[0].contains("the tasks are in the file"), "{both:?}");
    let kind = problems(&job(
        r#"{"type": "job-file", "params": {"repository": "r"}}"#,
    ));
    assert!(kind[0].contains("not a type of task"), "{kind:?}");
    let config = stored(r#", "labels": ["*"]"#);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(JobConfig::parse(&text).unwrap(), config);
}
