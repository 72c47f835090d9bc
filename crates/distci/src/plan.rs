//! What `exec` is going to do, before it does anything.
//!
//! Owns the checks that need all files at once: jobs named twice, downstream jobs that are in none
//! of the files, rounds without end, parameters that nobody takes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use distci_model::capability::{Capability, Label};
use distci_model::config::{JobConfig, resolve_parameters};
use distci_model::id::JobId;

/// Values for the parameters of a job.
pub(crate) type Values = BTreeMap<String, String>;

/// Jobs to build, and what they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The jobs that no other one triggers, with their parameters, in the order of the files.
    pub(crate) first: Vec<(JobId, Values)>,
    /// Every label that a task asks for.
    pub(crate) labels: Vec<Label>,
}

impl Plan {
    /// The plan for these jobs, with these values for parameters.
    ///
    /// # Errors
    /// What is wrong, for the person who gave the files.
    pub(crate) fn of(jobs: &[&JobConfig], given: &[(String, String)]) -> Result<Self, String> {
        let names: BTreeSet<&JobId> = jobs.iter().map(|job| &job.job_id).collect();
        check_names(jobs, &names)?;
        let downstream: BTreeSet<&JobId> = jobs.iter().flat_map(|job| downstream(job)).collect();
        check_rounds(jobs)?;
        let first: Vec<&JobConfig> = jobs
            .iter()
            .copied()
            .filter(|job| !downstream.contains(&job.job_id))
            .collect();
        Ok(Self {
            first: parameters(&first, given)?,
            labels: labels(jobs),
        })
    }
}

/// The jobs that builds of a job trigger, however they end.
fn downstream(job: &JobConfig) -> impl Iterator<Item = &JobId> {
    job.downstream_jobs.iter().map(|next| &next.job)
}

fn check_names(jobs: &[&JobConfig], names: &BTreeSet<&JobId>) -> Result<(), String> {
    for (position, job) in jobs.iter().enumerate() {
        if jobs[..position]
            .iter()
            .any(|other| other.job_id == job.job_id)
        {
            return Err(format!("two files are of job {}", job.job_id));
        }
        if let Some(missing) = downstream(job).find(|job| !names.contains(job)) {
            let job = &job.job_id;
            return Err(format!(
                "{job} triggers {missing}, which is in none of the files: \
                 add the file of {missing}"
            ));
        }
    }
    Ok(())
}

/// Takes away jobs that trigger none of the rest until nothing is left; a round stays.
fn check_rounds(jobs: &[&JobConfig]) -> Result<(), String> {
    let mut rest: Vec<&JobConfig> = jobs.to_vec();
    loop {
        let left: BTreeSet<&JobId> = rest.iter().map(|job| &job.job_id).collect();
        let before = rest.len();
        rest.retain(|job| downstream(job).any(|next| left.contains(next)));
        if rest.is_empty() {
            return Ok(());
        }
        if rest.len() == before {
            let names: Vec<&str> = rest.iter().map(|job| job.job_id.as_str()).collect();
            let names = names.join(", ");
            return Err(format!(
                "these jobs would trigger each other for ever: {names}"
            ));
        }
    }
}

fn parameters(
    first: &[&JobConfig],
    given: &[(String, String)],
) -> Result<Vec<(JobId, Values)>, String> {
    for (name, _) in given {
        if !first.iter().any(|job| job.parameters.contains_key(name)) {
            return Err(format!(
                "no job that is built first has a parameter {name:?}"
            ));
        }
    }
    let all: BTreeMap<&String, &String> = given.iter().map(|(name, value)| (name, value)).collect();
    if all.len() < given.len() {
        return Err("a parameter is given twice".to_owned());
    }
    let mut plan = Vec::new();
    for job in first {
        let own: Values = all
            .iter()
            .filter(|(name, _)| job.parameters.contains_key(**name))
            .map(|(name, value)| ((*name).clone(), (*value).clone()))
            .collect();
        let resolved = resolve_parameters(&job.parameters, &own);
        resolved.map_err(|error| format!("{}: {error}", job.job_id))?;
        plan.push((job.job_id.clone(), own));
    }
    Ok(plan)
}

/// What a file in a repository asks for is not known yet, only what it may ask for.
fn labels(jobs: &[&JobConfig]) -> Vec<Label> {
    let tasks = jobs.iter().flat_map(|job| job.flat().tasks);
    let allowed = jobs.iter().flat_map(|job| &job.job_file);
    let allowed = allowed.flat_map(|file| &file.labels);
    let mut labels: Vec<Label> = allowed.filter_map(|label| label.parse().ok()).collect();
    for task in tasks {
        for capability in task.requires().iter() {
            if let Capability::Label(label) = capability
                && !labels.contains(label)
            {
                labels.push(label.clone());
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, rest: &str) -> JobConfig {
        let task = r#"{"type":"execute-shell","params":{"script":"true","nodelabels":["big"]}}"#;
        let text = format!(r#"{{"job_id":"{name}","tasks":[{task}]{rest}}}"#);
        JobConfig::parse(&text).unwrap()
    }

    fn plan(jobs: &[JobConfig], given: &[(&str, &str)]) -> Result<Plan, String> {
        let jobs: Vec<&JobConfig> = jobs.iter().collect();
        let given: Vec<(String, String)> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Plan::of(&jobs, &given)
    }

    #[test]
    fn what_is_triggered_is_not_built_first() {
        let jobs = [
            job("deploy", ""),
            job("build", r#","downstream_jobs":["deploy"]"#),
        ];
        let plan = plan(&jobs, &[]).unwrap();
        let first: Vec<&str> = plan.first.iter().map(|(job, _)| job.as_str()).collect();
        assert_eq!(first, ["build"]);
        assert_eq!(plan.labels, ["big".parse().unwrap()]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let jobs = [job("build", r#","downstream_jobs":["deploy"]"#)];
        assert_eq!(
            plan(&jobs, &[]).unwrap_err(),
            "build triggers deploy, which is in none of the files: add the file of deploy"
        );
    }

    #[test]
    fn a_round_has_no_beginning_and_no_end() {
        let jobs = [
            job("start", r#","downstream_jobs":["a"]"#),
            job("a", r#","downstream_jobs":["b"]"#),
            job("b", r#","downstream_jobs":["a"]"#),
        ];
        let error = plan(&jobs, &[]).unwrap_err();
        assert!(
            error.starts_with("these jobs would trigger each other"),
            "{error}"
        );
        assert!(plan(&[job("a", ""), job("a", "")], &[]).is_err());
    }

    #[test]
    fn parameters_go_to_the_jobs_that_have_them() {
        let jobs = [job("a", r#","parameters":{"x":{}}"#), job("b", "")];
        let plan_of = plan(&jobs, &[("x", "1")]).unwrap();
        assert_eq!(plan_of.first[0].1["x"], "1");
        assert!(plan_of.first[1].1.is_empty());
        assert!(plan(&jobs, &[]).unwrap_err().contains("needs a value"));
        assert!(
            plan(&jobs, &[("x", "1"), ("y", "2")])
                .unwrap_err()
                .contains("\"y\"")
        );
        assert!(plan(&jobs, &[("x", "1"), ("x", "2")]).is_err());
    }
}
