//! How many bytes a page is, with everything that it loads.

use super::http::{Line, assets};
use super::{Site, build};
use crate::report::Report;

pub(super) const FIGURE: &str = "pages: weight of the heaviest";

const SIGN_IN: &str = "sign-in";

/// Every page, by what it is called. Those of a build are of the one with many tasks.
fn pages() -> Vec<(&'static str, String)> {
    let (job, build) = (
        format!("/jobs/{}", build::JOB),
        format!("/jobs/{}/builds/1", build::JOB),
    );
    vec![
        ("home", "/".to_owned()),
        ("job", job.clone()),
        ("edit", format!("{job}/edit")),
        ("new", "/new".to_owned()),
        ("revisions", format!("{job}/revisions?of=2")),
        ("build", build.clone()),
        ("events", format!("{build}/events")),
        ("console", format!("{build}/console?task=t43")),
        ("tests", format!("{build}/tests")),
        ("search", "/search?q=true&since=7d".to_owned()),
        ("queue", "/queue".to_owned()),
        ("workers", "/workers".to_owned()),
        ("cluster", "/cluster".to_owned()),
        (SIGN_IN, "/sign-in".to_owned()),
    ]
}

pub(super) async fn measure(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    let mut reader = Line::open(site.url, &site.token).await?;
    // Who is signed in is led away from where one signs in.
    let mut stranger = Line::open(site.url, "").await?;
    let mut weights = Vec::new();
    for (name, path) in pages() {
        let line = if name == SIGN_IN {
            &mut stranger
        } else {
            &mut reader
        };
        let page = line.get(&path).await?;
        let mut bytes = page.len();
        for asset in assets(&page) {
            bytes += line.get(&asset).await?.len();
        }
        weights.push((bytes, name));
    }
    weights.sort_unstable();
    let shown: Vec<_> = weights
        .iter()
        .map(|(bytes, name)| format!("{name} {}", kilobytes(*bytes)))
        .collect();
    let heaviest = shown.last().cloned().unwrap_or_default();
    let raw = String::from("not compressed");
    report.add(FIGURE, heaviest, "< 100 kB", raw);
    report.note(format!(
        "Weights of pages with all that they load: {}.",
        shown.join(", ")
    ));
    Ok(())
}

fn kilobytes(bytes: usize) -> String {
    format!("{}.{} kB", bytes / 1000, bytes % 1000 / 100)
}
