//! The pages: what people see in a browser.
//!
//! Owns which address shows which page, what each page reads, and what its forms do: the same as the
//! API, by the same functions. How pages look is `distci-pages`. Nothing changes by a GET, and what a
//! form does is answered with where to look next, so that loading a page again repeats nothing.

mod artifacts;
mod assets;
mod build;
mod cluster;
mod console;
mod edit;
mod form;
mod headers;
mod home;
mod job;
mod journal;
mod live;
mod queue;
mod reports;
mod revisions;
mod search;
mod sign_in;
mod viewer;
mod workers;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT, CACHE_CONTROL, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use distci_model::id::{BuildRef, RequestId};
use distci_model::wire::Problem;
use distci_pages::{Frame, Page, Place, Trouble};

pub(crate) use headers::protect;

use crate::app::App;
use crate::auth::{self, Gate, Visitor};
use crate::error::ApiError;

/// The routes of all pages.
pub(crate) fn router(app: &App, gate: &Gate) -> Router<App> {
    let state = (gate.clone(), app.clone());
    let live = live::Live::new(app, shown());
    let watch = viewer::Watch::new(app);
    shown()
        .route("/live", get(live::follow).with_state(live))
        .route("/sign-out", post(sign_in::leave))
        .route("/search", get(search::show))
        .route("/new", get(edit::begin).post(edit::create))
        .route("/check-job", post(edit::check))
        .route("/jobs/{job}/builds/{build}/artifacts", get(artifacts::list))
        .route(
            "/jobs/{job}/builds/{build}/artifacts/{*path}",
            get(artifacts::show),
        )
        .route("/jobs/{job}/revisions", get(revisions::show))
        .route("/jobs/{job}/edit", get(edit::show).post(edit::change))
        .route("/jobs/{job}/badge.svg", get(job::badge))
        .route("/jobs/{job}/builds", get(job::lead).post(job::trigger))
        .route("/jobs/{job}/builds/{build}/cancel", post(build::cancel))
        .route("/jobs/{job}/builds/{build}/rerun", post(build::rerun))
        .route(
            "/jobs/{job}/builds/{build}/tasks/{task}/cancel",
            post(build::stop_task),
        )
        .route(
            "/jobs/{job}/builds/{build}/tasks/{task}/answer",
            post(build::answer_task),
        )
        .route(
            "/jobs/{job}/builds/{build}/console/part",
            get(viewer::part).with_state(watch.clone()),
        )
        .route(
            "/jobs/{job}/builds/{build}/console/times",
            get(viewer::times),
        )
        .route(
            "/jobs/{job}/builds/{build}/console/growth",
            get(viewer::growth).with_state(watch),
        )
        .layer(from_fn_with_state(state, auth::recognise))
        .merge(
            Router::new()
                .route("/sign-in", get(sign_in::show).post(sign_in::enter))
                .route("/made/{pass}/{job}/{build}/{*path}", get(artifacts::raw))
                .with_state((gate.clone(), app.clone())),
        )
        .route("/assets/{name}", get(assets::get))
}

/// What can be looked at, and is kept true while somebody does.
fn shown() -> Router<App> {
    Router::new()
        .route("/", get(home::show))
        .route("/jobs/{job}", get(job::show))
        .route("/jobs/{job}/builds/{build}", get(build::show))
        .route("/jobs/{job}/builds/{build}/console", get(console::show))
        .route("/jobs/{job}/builds/{build}/events", get(journal::show))
        .route("/jobs/{job}/builds/{build}/tests", get(reports::show))
        .route("/queue", get(queue::show))
        .route("/workers", get(workers::show))
        .route("/cluster", get(cluster::show))
}

/// Who looks, and what of this frontend every page shows.
pub(crate) struct Seat {
    pub(crate) app: App,
    pub(crate) visitor: Visitor,
}

impl FromRequestParts<App> for Seat {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let visitor = parts.extensions.get::<Visitor>().cloned();
        Ok(Self {
            app: app.clone(),
            visitor: visitor.ok_or_else(ApiError::unauthorized)?,
        })
    }
}

impl Seat {
    fn frame(&self, place: Place) -> Frame {
        frame(&self.app, Some(&self.visitor), place)
    }
}

fn frame(app: &App, visitor: Option<&Visitor>, place: Place) -> Frame {
    Frame {
        place,
        csrf: visitor.map(|visitor| visitor.csrf().to_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        frontend: app.peers.own().map(|id| id.to_string()),
    }
}

/// A page with its status. It is the reader's own, and may be another the next time.
fn page(status: StatusCode, page: &impl Page) -> Result<Response, ApiError> {
    let html = page.html().map_err(|error| ApiError::unrendered(&error))?;
    let headers = [(CACHE_CONTROL, "private, no-cache")];
    Ok((status, headers, Html(html)).into_response())
}

/// An id for a wish that a form will carry.
fn wish() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(RequestId::from_random(bytes).to_string())
}

/// The address of a build.
fn address(build: &BuildRef) -> String {
    format!("/jobs/{}/builds/{}", build.job, build.number)
}

/// Leads to an address of this site, to be looked at.
fn see(address: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, address)]).into_response()
}

/// Who asked for something that went wrong, as far as the form of the answer depends on it.
pub(crate) struct Asker {
    visitor: Option<Visitor>,
    /// Whether it looks for itself, and may look somewhere else.
    looks: bool,
    address: String,
}

impl Asker {
    /// The reader in front of a browser who makes a request; none if it is a program's.
    pub(crate) fn of(
        (gate, app): &(Gate, App),
        (method, headers): (&Method, &HeaderMap),
        address: &http::Uri,
    ) -> Option<Self> {
        let accept = headers.get(ACCEPT)?.to_str().ok()?;
        accept.contains("text/html").then(|| Self {
            visitor: gate.visitor(app, headers),
            looks: *method == Method::GET,
            address: address
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }

    /// A problem as a page. Who is not signed in and only looks is led to where one signs in.
    pub(crate) fn told(&self, app: &App, problem: Problem) -> Result<Response, ApiError> {
        if problem.status == 401 && self.looks {
            return Ok(see(&sign_in::address(&self.address)));
        }
        let status = StatusCode::from_u16(problem.status);
        let trouble = Trouble {
            frame: frame(app, self.visitor.as_ref(), Place::Elsewhere),
            problem,
        };
        page(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            &trouble,
        )
    }
}
