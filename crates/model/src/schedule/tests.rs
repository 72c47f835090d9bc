use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::parse(cron, zone, "job").unwrap()
}

/// The next moments after `after`, in the zone's own words.
fn next(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(cron, zone);
    let next = |moment: &Timestamp| schedule.next_after(*moment);
    std::iter::successors(schedule.next_after(at(after)), next)
        .take(count)
        .map(|moment| {
            let zoned = moment.to_zoned(schedule.zone.clone());
            zoned.strftime("%Y-%m-%d %H:%M %:z").to_string()
        })
        .collect()
}

#[test]
fn plain_expressions_come_when_they_say() {
    for (cron, after, expected) in [
        ("30 4 * * *", "2026-11-22T04:30:00Z", "2026-11-23 04:30"),
        ("30 4 * * *", "2026-11-22T04:29:59Z", "2026-11-22 04:30"),
        ("*/20 * * * *", "2026-11-22T04:41:00Z", "2026-11-22 05:00"),
        ("5/20 * * * *", "2026-11-22T04:26:00Z", "2026-11-22 04:45"),
        ("0 0 1 1 *", "2026-01-01T00:00:00Z", "2027-01-01 00:00"),
        ("59 23 31 12 *", "2026-01-01T00:00:00Z", "2026-12-31 23:59"),
        (
            "0 12 * * mon-fri",
            "2026-11-20T12:00:00Z",
            "2026-11-23 12:00",
        ),
        ("0 12 * * 7", "2026-11-20T12:00:00Z", "2026-11-22 12:00"),
        ("0 12 * * 5-7", "2026-11-21T12:00:00Z", "2026-11-22 12:00"),
        (
            "0 12 * JAN,Mar *",
            "2026-01-31T12:00:00Z",
            "2026-03-01 12:00",
        ),
        ("0 0 31 * *", "2026-04-01T00:00:00Z", "2026-05-31 00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29 00:00"),
        // A century that is no leap year.
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29 00:00"),
        // Day and weekday: either is enough.
        ("0 0 13 * fri", "2026-11-01T00:00:00Z", "2026-11-06 00:00"),
        ("0 0 13 * fri", "2026-12-11T00:00:00Z", "2026-12-13 00:00"),
        ("0 0 30 2 mon", "2026-01-01T00:00:00Z", "2026-02-02 00:00"),
        ("@daily", "2026-11-22T00:00:00Z", "2026-11-23 00:00"),
        ("@hourly", "2026-11-22T00:00:00Z", "2026-11-22 01:00"),
        ("@weekly", "2026-11-22T00:00:00Z", "2026-11-29 00:00"),
        ("@monthly", "2026-11-22T00:00:00Z", "2026-12-01 00:00"),
        ("@yearly", "2026-11-22T00:00:00Z", "2027-01-01 00:00"),
    ] {
        let found = next(cron, "UTC", after, 1);
        assert_eq!(
            found,
            [format!("{expected} +00:00")],
            "{cron} after {after}"
        );
    }
}

#[test]
fn a_time_that_is_skipped_comes_when_the_clocks_are_set() {
    let berlin = |cron| next(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", 3);
    assert_eq!(
        berlin("30 2 * * *"),
        [
            "2026-03-29 03:00 +02:00",
            "2026-03-30 02:30 +02:00",
            "2026-03-31 02:30 +02:00"
        ]
    );
    // Twice in the hour that is skipped, and once after it: one moment.
    assert_eq!(
        berlin("0,30 2,3 * * *"),
        [
            "2026-03-29 03:00 +02:00",
            "2026-03-29 03:30 +02:00",
            "2026-03-30 02:00 +02:00"
        ]
    );
    assert_eq!(
        next("30 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", 2),
        ["2026-03-08 03:00 -04:00", "2026-03-09 02:30 -04:00"]
    );
    // A day that was skipped whole.
    assert_eq!(
        next("0 12 30 * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 2),
        ["2011-12-31 00:00 +14:00", "2012-01-30 12:00 +14:00"]
    );
}

#[test]
fn a_time_that_comes_twice_counts_once() {
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25 02:30 +02:00", "2026-10-26 02:30 +01:00"]
    );
    // Asked between the two.
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
        ["2026-10-26 02:30 +01:00"]
    );
    assert_eq!(
        next(
            "0,30 1-2 * * *",
            "America/New_York",
            "2026-11-01T04:45:00Z",
            5
        ),
        [
            "2026-11-01 01:00 -04:00",
            "2026-11-01 01:30 -04:00",
            "2026-11-01 02:00 -05:00",
            "2026-11-01 02:30 -05:00",
            "2026-11-02 01:00 -05:00",
        ]
    );
}

#[test]
fn what_comes_every_hour_goes_by_the_time_that_passes() {
    assert_eq!(
        next("30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4),
        [
            "2026-10-25 02:30 +02:00",
            "2026-10-25 02:30 +01:00",
            "2026-10-25 03:30 +01:00",
            "2026-10-25 04:30 +01:00",
        ]
    );
    assert_eq!(
        next("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        [
            "2026-03-29 01:30 +01:00",
            "2026-03-29 03:30 +02:00",
            "2026-03-29 04:30 +02:00"
        ]
    );
}

#[test]
fn h_stands_for_a_value_that_is_chosen_once() {
    let fields = |cron: &str, by: &str| Fields::parse(cron, by).unwrap();
    let values = |fields: &Fields, field: usize| {
        let has = |value: &i8| fields.has(field, *value);
        (0..60).filter(has).collect::<Vec<i8>>()
    };
    let mut minutes = std::collections::BTreeSet::new();
    for job in 0..200 {
        let job = format!("job-{job}");
        let chosen = fields("H H(1-5) H H H", &job);
        assert_eq!(chosen, fields("H H(1-5) H H H", &job));
        for field in 0..5 {
            assert_eq!(values(&chosen, field).len(), 1);
        }
        minutes.extend(values(&chosen, MINUTE));
        assert!((1..=5).contains(&values(&chosen, HOUR)[0]));
        assert!((1..=28).contains(&values(&chosen, DAY)[0]));
        assert!((0..=6).contains(&values(&chosen, WEEKDAY)[0]));
        let quarters = values(&fields("H/15 * * * *", &job), MINUTE);
        assert!(quarters.len() == 4 && quarters[0] < 15, "{quarters:?}");
        assert!(quarters.windows(2).all(|two| two[1] - two[0] == 15));
        let tens = values(&fields("H(0-29)/10 * * * *", &job), MINUTE);
        assert!(tens.len() == 3 && tens[2] < 30, "{tens:?}");
    }
    assert!(minutes.len() > 50, "they are not spread: {minutes:?}");
}

#[test]
fn nonsense_is_told_by_field() {
    for (cron, part) in [
        ("", "0 fields instead of 5"),
        ("* * * *", "4 fields instead of 5"),
        ("0 * * * * *", "seconds and years cannot be given"),
        ("60 * * * *", "minute \"60\": \"60\" is not 0 to 59"),
        ("* 24 * * *", "hour \"24\": "),
        ("* * 0 * *", "day of the month \"0\": "),
        (
            "* * * 13 *",
            "month \"13\": \"13\" is not 1 to 12 or jan to dec",
        ),
        (
            "* * * * 8",
            "day of the week \"8\": \"8\" is not 0 to 7 or sun to sat",
        ),
        ("* * * * mon-", "\"\" is not 0 to 7"),
        ("*/0 * * * *", "the step \"0\" is not a number from 1 to 60"),
        ("*/61 * * * *", "the step \"61\""),
        ("*/x * * * *", "the step \"x\""),
        ("1,,2 * * * *", "\"\" is not 0 to 59"),
        ("+5 * * * *", "\"+5\" is not 0 to 59"),
        ("* * * * fri-mon", "5 comes after 1"),
        ("H(5 * * * *", "write H, H(1-5), H/15"),
        ("H(50-70) * * * *", "\"70\" is not 0 to 59"),
        ("* * L * *", "\"L\" is not 1 to 31"),
        (
            "0 0 30 2 *",
            "it never comes: no month of these has a day 30",
        ),
        ("0 0 31 4,6,9,11 *", "it never comes"),
        ("@often", "\"@often\" is not known: there are @yearly"),
        ("nonsense", "1 fields instead of 5"),
    ] {
        let problem = Schedule::parse(cron, "UTC", "job").unwrap_err();
        assert!(problem.to_string().contains(part), "{cron}: {problem}");
    }
    let zone = Schedule::parse("* * * * *", "Europe/Bonn", "job").unwrap_err();
    assert_eq!(zone, ScheduleProblem::Zone("Europe/Bonn".to_owned()));
}

#[test]
fn what_was_missed_is_caught_up_with_as_asked() {
    let hourly = schedule("0 * * * *", "UTC");
    let due = |catch_up, last, now| hourly.due(catch_up, at(last), at(now));
    let hours = |hours: &[&str]| -> Vec<_> {
        let moment = |hour| at(&format!("2026-11-22T{hour}:00:00Z"));
        hours.iter().map(moment).collect()
    };
    let (last, late) = ("2026-11-22T00:00:00Z", "2026-11-22T05:30:00Z");
    assert_eq!(due(CatchUp::None, last, late), []);
    assert_eq!(due(CatchUp::Last, last, late), hours(&["05"]));
    assert_eq!(
        due(CatchUp::All, last, late),
        hours(&["01", "02", "03", "04", "05"])
    );
    let in_time = "2026-11-22T05:00:30Z";
    for catch_up in [CatchUp::None, CatchUp::Last] {
        assert_eq!(due(catch_up, last, in_time), hours(&["05"]));
        assert_eq!(due(catch_up, in_time, in_time), []);
        // The clock was set back.
        assert_eq!(due(catch_up, in_time, "2026-11-22T04:59:00Z"), []);
    }
    let daily = schedule("0 0 * * *", "UTC");
    assert_eq!(
        daily.due(CatchUp::Last, at(last), at("2026-11-23T01:00:01Z")),
        []
    );
    let all = hourly.due(CatchUp::All, at("2020-01-01T00:00:00Z"), at(late));
    assert_eq!((all.len(), all.last()), (100, hours(&["05"]).last()));
    let yearly = schedule("0 0 1 1 *", "UTC");
    let all = yearly.due(CatchUp::All, at("2020-06-01T00:00:00Z"), at(late));
    assert_eq!(all.len(), 6);
}

#[test]
fn marks_stay_with_their_triggers() {
    let trigger = |cron: &str| {
        Trigger::Schedule(ScheduleTrigger {
            cron: cron.to_owned(),
            timezone: "UTC".to_owned(),
            catch_up: CatchUp::Last,
            parameters: std::collections::BTreeMap::new(),
        })
    };
    let (one, other) = (trigger("0 1 * * *"), trigger("0 2 * * *"));
    let marks = |triggers: &[&Trigger]| -> Vec<String> {
        let triggers: Vec<_> = triggers.iter().copied().cloned().collect();
        let marked = marked(&triggers);
        marked.into_iter().map(|marked| marked.mark).collect()
    };
    let (forth, back) = (marks(&[&one, &other]), marks(&[&other, &one]));
    assert_eq!((&forth[0], &forth[1]), (&back[1], &back[0]));
    let alike = marks(&[&one, &one]);
    assert!(alike[0] == forth[0] && alike[1] != forth[0]);
}

/// What the rule says of one minute, found without looking for it: does it come then?
fn comes(schedule: &Schedule, moment: Timestamp) -> bool {
    let fits = |time: DateTime| {
        schedule.comes_on(time.date())
            && schedule.fields.has(HOUR, time.hour())
            && schedule.fields.has(MINUTE, time.minute())
    };
    let time = schedule.zone.to_datetime(moment);
    let every_hour = schedule.fields.is_full(HOUR);
    let ambiguous = schedule.zone.to_ambiguous_timestamp(time);
    let is_first = every_hour || ambiguous.earlier().unwrap() == moment;
    let minute = Duration::from_mins(1);
    let mut skipped = schedule.zone.to_datetime(moment - minute);
    let mut after_skipped = false;
    loop {
        skipped = skipped.checked_add(minute).unwrap();
        if skipped >= time {
            break;
        }
        after_skipped |= fits(skipped);
    }
    fits(time) && is_first || after_skipped && !every_hour
}

fn field(most: u8, least: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        2 => (least..=most).prop_map(|value| value.to_string()),
        1 => (2u8..=most.min(20)).prop_map(|step| format!("*/{step}")),
        1 => (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (least..=most, least..=most).prop_map(|(a, b)| format!("{a},{b}")),
        1 => Just("H".to_owned()),
    ]
}

proptest! {
    /// Moments rise strictly, and between two of them there is none, around the days on which
    /// clocks are set and on others.
    #[test]
    fn moments_are_those_that_fit(
        minute in field(59, 0), hour in field(5, 0), weekday in field(6, 0),
        zone in prop::sample::select(&[
            "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
        ][..]),
        day in prop::sample::select(&[
            "2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-07-01",
        ][..]),
        offset in 0i64..1440,
    ) {
        let schedule = schedule(&format!("{minute} {hour} * * {weekday}"), zone);
        let start = at(&format!("{day}T00:00:00Z")) + Duration::from_mins(offset.unsigned_abs());
        let minutes = (1..=2 * 1440).map(|minutes| start + Duration::from_mins(minutes));
        let expected: Vec<_> = minutes.filter(|moment| comes(&schedule, *moment)).collect();
        let end = start + Duration::from_hours(48);
        prop_assert_eq!(schedule.between(start, end), expected);
    }

    /// No text makes it fail otherwise than by saying so.
    #[test]
    fn any_text_is_read_or_refused(cron in "[-*/,H()0-9a-z @]{0,24}") {
        if let Ok(schedule) = Schedule::parse(&cron, "Europe/Berlin", "job") {
            let first = schedule.next_after(at("2026-11-22T00:00:00Z"));
            prop_assert!(first.is_some(), "{cron} was read and never comes");
        }
    }
}
