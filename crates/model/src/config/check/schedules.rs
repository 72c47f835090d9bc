//! The schedules of a job file.
//!
//! Owns the words for what is wrong with them; what they mean is [`crate::schedule`]'s.

use crate::config::Trigger;
use crate::config::parse::{Reader, WrittenJob, meant};
use crate::schedule::{Schedule, ScheduleProblem, zone_names};

/// Notes every schedule that says nothing.
pub(super) fn check(reader: &mut Reader<'_>, written: &WrittenJob) {
    let job = written.head.job_id.as_str();
    for (index, trigger) in written.triggers.iter().enumerate() {
        let Trigger::Schedule(schedule) = trigger else {
            continue;
        };
        let Err(problem) = Schedule::parse(&schedule.cron, &schedule.timezone, job) else {
            continue;
        };
        let (key, help) = match &problem {
            ScheduleProblem::Cron(_) => ("cron", None),
            ScheduleProblem::Zone(zone) => ("timezone", Some(zone_like(zone))),
        };
        let path = format!("triggers[{index}].{key}");
        reader.problem(&path, &problem.to_string(), help);
    }
}

/// Most people know the city, not the region that it is in.
fn zone_like(zone: &str) -> String {
    let names = zone_names();
    let city = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let same_city = names.iter().find(|name| city(name) == city(zone));
    let known = names.iter().map(String::as_str);
    match same_city {
        Some(name) => format!("did you mean `{name}`?"),
        None => meant(zone, known)
            .unwrap_or_else(|| "a name of the IANA database: Europe/Berlin, UTC".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;

    fn problems(trigger: &str) -> Vec<String> {
        let task = r#"{"type": "execute-shell", "params": {"script": "true"}}"#;
        let text = format!(r#"{{"job_id": "j", "tasks": [{task}], "triggers": [{trigger}]}}"#);
        let found = JobConfig::parse(&text).err().unwrap_or_default();
        let told = found.into_iter().map(|problem| {
            let help = problem.help.unwrap_or_default();
            format!("{}: {}: {help}", problem.path, problem.message)
        });
        told.collect()
    }

    #[test]
    fn schedules_are_read_when_the_job_is() {
        let fine = r#"{"cron": "H 4 * * 1-5", "timezone": "Europe/Berlin", "catch_up": "all"}"#;
        assert_eq!(problems(fine), Vec::<String>::new());
        let found = problems(r#"{"cron": "0 4 * * *"}, {"cron": "0 25 * * *"}"#);
        assert_eq!(
            found,
            ["triggers[1].cron: hour \"25\": \"25\" is not 0 to 23: "]
        );
    }

    #[test]
    fn a_zone_is_suggested_by_its_city_or_its_spelling() {
        for (zone, meant) in [
            ("Berlin", "Europe/Berlin"),
            ("Europe/Berln", "Europe/Berlin"),
            ("new_york", "America/New_York"),
        ] {
            let found = problems(&format!(r#"{{"cron": "@daily", "timezone": "{zone}"}}"#));
            let expected = format!(
                "triggers[0].timezone: there is no time zone {zone:?}: did you mean `{meant}`?"
            );
            assert_eq!(found, [expected]);
        }
        let found = problems(r#"{"cron": "@daily", "timezone": "nowhere at all"}"#);
        assert!(found[0].contains("Europe/Berlin, UTC"), "{found:?}");
    }
}
