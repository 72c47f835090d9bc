//! Pages that stay true while somebody looks at them.
//!
//! Owns the stream by which an open page learns what it would show if it were loaded again. It knows
//! no page: it asks for the page's address as a browser does, and tells when the answer is another.
//! However many look at a page through this frontend, it is rendered once for all of them.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use distci_model::id::{BuildKey, BuildRef};
use distci_store::StoreError;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use super::viewer::RETRY;
use crate::app::App;
use crate::auth::Visitor;
use crate::error::ApiError;
use crate::shared::{Look, Looks};

/// How often a page is rendered again of which no news come.
const LOOK: Duration = Duration::from_secs(1);
/// How long news are collected before they are shown.
const TOGETHER: Duration = Duration::from_millis(100);
/// Largest page.
const MOST: usize = 8 * 1024 * 1024;
/// Longest address of a page.
const LONGEST: usize = 2048;

/// What is needed to render pages for those who look.
#[derive(Clone)]
pub(super) struct Live {
    app: App,
    /// The pages, without a door: who comes here has passed it.
    pages: Router,
    looks: Arc<Looks<String, Seen>>,
}

/// A page as somebody saw it, unless it is gone.
type Seen = Option<Arc<Shown>>;

/// A page as it was shown.
struct Shown {
    /// The same as long as the page is.
    tag: String,
    event: String,
}

/// What changes of an open page.
#[derive(Serialize)]
struct Parts<'a> {
    title: &'a str,
    icon: &'a str,
    main: &'a str,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// The address of the page, without the host.
    of: String,
}

impl Live {
    pub(super) fn new(app: &App, pages: Router<App>) -> Self {
        Self {
            app: app.clone(),
            pages: pages.with_state(app.clone()),
            looks: Arc::default(),
        }
    }

    /// The page as it was at `since` or later; nothing, if there is no such page any more.
    async fn look(
        &self,
        page: &Look<Seen>,
        address: &str,
        since: Instant,
    ) -> Result<Seen, ApiError> {
        let render = async || Ok(self.render(address).await?.map(Arc::new));
        page.since(since, render).await
    }

    async fn render(&self, address: &str) -> Result<Option<Shown>, ApiError> {
        let request = Request::get(address)
            .extension(Visitor::Program)
            .body(Body::empty())
            .map_err(|_| ApiError::malformed("that is not the address of a page"))?;
        let Ok(answer) = self.pages.clone().oneshot(request).await;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_server_error() => {
                let why = format!("the page was answered by {status}");
                return Err(StoreError::Down(why.into()).into());
            }
            _ => return Ok(None),
        }
        let body = to_bytes(answer.into_body(), MOST).await;
        let body = body.map_err(|_| ApiError::malformed("the page is too large to be followed"))?;
        let html = String::from_utf8_lossy(&body);
        Ok(Shown::of(&html))
    }
}

impl Shown {
    fn of(html: &str) -> Option<Self> {
        let parts = Parts {
            title: between(html, "<title>", "</title>")?,
            icon: between(
                html,
                "<link rel=\"icon\" type=\"image/svg+xml\" href=\"",
                "\"",
            )?,
            main: between(html, "<main", "</main>")?,
        };
        let event = serde_json::to_string(&parts).ok()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(parts.title.as_bytes());
        hasher.update(parts.icon.as_bytes());
        for part in lasting(parts.main) {
            hasher.update(part.as_bytes());
        }
        let tag = hasher.finalize().to_hex()[..16].to_owned();
        Some(Self { tag, event })
    }
}

/// A page as it changes: server-sent events. Each is named by what the page shows, so whoever comes
/// back, to whichever frontend, is told only what is new.
pub(super) async fn follow(
    State(live): State<Live>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let address = wanted.of;
    if !address.starts_with('/') || address.starts_with("//") || address.len() > LONGEST {
        return Err(ApiError::malformed("that is not the address of a page"));
    }
    let page = live.looks.at(address.clone());
    let first = live.look(&page, &address, Instant::now()).await?;
    if first.is_none() {
        return Err(ApiError::not_found("there is no such page"));
    }
    let last = headers.get("last-event-id");
    let seen = last.and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let watcher = Watcher {
        news: News::of(&live.app, &address).await,
        live,
        page,
        address,
        seen,
    };
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(watcher.events()).keep_alive(keep))
}

/// One who looks at a page.
struct Watcher {
    live: Live,
    page: Arc<Look<Seen>>,
    address: String,
    seen: Option<String>,
    news: News,
}

impl Watcher {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        // What is known is told first; only then is it waited for news.
        let start = Some((self, Some(Instant::now())));
        futures::stream::unfold(start, async |state| {
            let (mut own, mut since) = state?;
            loop {
                let moment = match since.take() {
                    Some(moment) => moment,
                    None => own.next().await?,
                };
                match own.live.look(&own.page, &own.address, moment).await {
                    Ok(Some(shown)) if own.seen.as_ref() != Some(&shown.tag) => {
                        own.seen = Some(shown.tag.clone());
                        let event = Event::default().event("page").id(&shown.tag);
                        let event = event.retry(RETRY).data(&shown.event);
                        return Some((Ok(event), Some((own, None))));
                    }
                    Ok(None) => {
                        let event = Event::default().event("gone").data("{}");
                        return Some((Ok(event), None));
                    }
                    // Trouble passes, or the reader comes back to another frontend.
                    Ok(Some(_)) | Err(_) => {}
                }
            }
        })
    }

    /// Waits until the page may be another. Gives since when it has to be looked at; nothing, if this
    /// frontend leaves.
    async fn next(&mut self) -> Option<Instant> {
        let rung = tokio::select! {
            () = self.live.app.stop.cancelled() => return None,
            rung = self.news.come() => rung,
        };
        let now = Instant::now();
        if rung {
            // All who wait for these news are awake by then, and one look serves them.
            sleep(TOGETHER).await;
            return Some(now);
        }
        Some(now.checked_sub(LOOK / 2).unwrap_or(now))
    }
}

/// When a page may have changed.
struct News {
    build: Option<watch::Receiver<()>>,
}

impl News {
    async fn of(app: &App, address: &str) -> Self {
        let key: Option<BuildKey> = match build_of(address) {
            Some(build) => app.store.build_key(&build).await.ok(),
            None => None,
        };
        Self {
            build: key.map(|key| app.builds.subscribe(&key)),
        }
    }

    /// Waits for news, and says whether there are any; or not for long.
    async fn come(&mut self) -> bool {
        let Some(build) = &mut self.build else {
            sleep(LOOK).await;
            return false;
        };
        tokio::select! {
            Ok(()) = build.changed() => true,
            () = sleep(LOOK) => false,
        }
    }
}

/// The build that a page is about: `/jobs/JOB/builds/NUMBER…`.
fn build_of(address: &str) -> Option<BuildRef> {
    let path = address.split(['?', '#']).next()?;
    let mut parts = path.split('/').skip(1);
    let (jobs, job, builds, number) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if jobs != "jobs" || builds != "builds" {
        return None;
    }
    format!("{job}#{number}").parse().ok()
}

/// The text between the first `start` and the `end` after it.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let range = range_between(text, start, end)?;
    text.get(range)
}

fn range_between(text: &str, start: &str, end: &str) -> Option<Range<usize>> {
    let from = text.find(start)? + start.len();
    let length = text.get(from..)?.find(end)?;
    Some(from..from + length)
}

/// What of a page stays the same when it is rendered again and nothing happened: without the words
/// for moments, which the reader's own script keeps true, and without the names of further requests.
fn lasting(main: &str) -> Vec<&str> {
    let passing = [("<time ", "</time>"), ("name=\"request\" value=\"", "\"")];
    let mut parts = Vec::new();
    let mut rest = main;
    loop {
        let found = passing
            .iter()
            .filter_map(|(start, end)| range_between(rest, start, end));
        let Some(range) = found.min_by_key(|range| range.start) else {
            parts.push(rest);
            return parts;
        };
        let (before, after) = (rest.get(..range.start), rest.get(range.end..));
        let (Some(before), Some(after)) = (before, after) else {
            parts.push(rest);
            return parts;
        };
        parts.push(before);
        // The moment itself counts: it is in the tag, before the words.
        let inside = rest.get(range).unwrap_or_default();
        if let Some((tag, _)) = inside.split_once('>') {
            parts.push(tag);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(main: &str) -> String {
        format!(
            "<title>t</title><link rel=\"icon\" type=\"image/svg+xml\" href=\"/i\"><main id=\"main\">{main}</main>"
        )
    }

    fn tag(main: &str) -> String {
        Shown::of(&page(main)).unwrap().tag
    }

    #[test]
    fn only_what_happened_makes_another_page() {
        let at = |moment: &str, words: &str, more: &str| {
            tag(&format!(
                "<p><time class=\"ago\" datetime=\"{moment}\">{words}</time> {more}\
                 <input name=\"request\" value=\"{words}\"></p>"
            ))
        };
        let before = at("2026-01-01", "3 s ago", "a");
        assert_eq!(before, at("2026-01-01", "4 s ago", "a"));
        assert_ne!(before, at("2026-01-02", "3 s ago", "a"));
        assert_ne!(before, at("2026-01-01", "3 s ago", "b"));
    }

    #[test]
    fn pages_of_builds_are_known_by_their_addresses() {
        let build = build_of("/jobs/j/builds/3/console?task=a").unwrap();
        assert_eq!(build.to_string(), "j#3");
        for address in [
            "/",
            "/jobs/j",
            "/jobs/j/builds",
            "/jobs/j/builds/x",
            "/x/j/builds/3",
        ] {
            assert_eq!(build_of(address), None, "{address}");
        }
    }
}
