//! The figures of the pages: at the server, on the screen of a real browser, and by weight.
//!
//! Owns which figures there are. Beside each stands what the same bytes take from memory, by the
//! barest server and to the same client or browser.

#[path = "../../tests/browser/browser.rs"]
#[expect(
    dead_code,
    reason = "tests ask more of a browser than a benchmark does"
)]
mod browser;
mod build;
mod console;
mod followers;
mod home;
mod http;
mod weight;

use distci_client::Client;

use crate::report::Report;
use crate::rig::Server;

/// A frontend that serves pages, and how to get in.
pub(crate) struct Site<'a> {
    pub(crate) client: &'a Client,
    pub(crate) url: &'a str,
    pub(crate) token: String,
}

/// Those of one server over the embedded store.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let wants = |figures: &[&str]| figures.iter().any(|figure| report.wants(figure));
    let (pages, screens) = (wants(&SERVED), wants(&console::FIGURES));
    if pages {
        let server = Server::standalone(4).await?;
        let site = server.site()?;
        home::fill(&site, home::LIVELY).await?;
        home::measure(report, &site, "").await?;
        home::on_screen(report, &site).await?;
        build::measure(report, &site, "").await?;
        weight::measure(report, &site).await?;
    }
    if screens {
        console::measure(report).await?;
    }
    followers::measure(report).await
}

/// Those whose pages are of one site with many jobs.
const SERVED: [&str; 7] = [
    home::QUIET,
    home::TRIGGERED,
    home::FIRST,
    home::SCREEN,
    build::FINISHED,
    build::RUNNING,
    weight::FIGURE,
];

/// Those that are also measured over a cluster.
pub(crate) const CLUSTERED: [&str; 5] = [
    home::QUIET,
    home::TRIGGERED,
    home::FIRST,
    build::FINISHED,
    build::RUNNING,
];

/// The same of a cluster, without a browser, which makes no difference there.
pub(crate) async fn measure_cluster(report: &mut Report, site: &Site<'_>) -> anyhow::Result<()> {
    home::fill(site, home::CALM).await?;
    home::measure(report, site, "cluster: ").await?;
    build::measure(report, site, "cluster: ").await
}
