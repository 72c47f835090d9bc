//! The schedules of a job file.
//!
//! Owns the words for what is wrong with them; what they mean is [`crate::schedule`]'s.

use crate::config::parse::{Reader, WrittenJob};
use crate::schedule::{ScheduleProblem, marked, zone_names};

/// Notes every schedule that says nothing.
pub(super) fn check(reader: &mut Reader<'_>, written: &WrittenJob) {
    for marked in marked(&written.triggers) {
        let Err(problem) = marked.schedule(&written.head.job_id) else {
            continue;
        };
        let (key, help) = match &problem {
            ScheduleProblem::Cron(_) => ("cron", None),
            ScheduleProblem::Zone(zone) => ("timezone", Some(zone_like(zone))),
        };
        let path = format!("triggers[{}].{key}", marked.index);
        reader.problem(&path, &problem.to_string(), help);
    }
}

/// Most people know the city, not the region that it is in.
fn zone_like(zone: &str) -> String {
    let names = zone_names();
    let written: String = zone.chars().take(64).collect::<String>().to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        let city = name.rsplit('/').next().unwrap_or_default();
        let likeness = |part: &str| strsim::jaro_winkler(&written, part);
        likeness(&name).max(likeness(city))
    };
    let likely = names.iter().map(|name| (likeness(name), name));
    let likeliest = likely
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match likeliest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => "a name of the IANA database: Europe/Berlin, UTC".to_owned(),
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
