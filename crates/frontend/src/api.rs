//! The API: one table of all routes.
//!
//! Owns which path leads where and what every request passes through: an id, the token, the form of
//! errors, limits. Handlers are in the modules below, one for each noun.

#![expect(
    unused_qualifications,
    reason = "the description's macro writes argument types out"
)]

pub(crate) mod artifacts;
pub(crate) mod builds;
mod caches;
mod claims;
pub(crate) mod cluster;
pub(crate) mod console_lines;
mod consoles;
mod demand;
mod description;
pub(crate) mod drains;
mod extract;
pub(crate) mod grep;
mod hooks;
pub(crate) mod jobs;
mod journals;
pub(crate) mod locks;
mod passes;
pub(crate) mod schedules;
pub(crate) mod test_reports;
mod tickets;
pub(crate) mod vitals;
pub(crate) mod why;

use std::sync::LazyLock;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use distci_model::test_report::MAX_TEST_REPORT;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{self, Gate};
use crate::error::{self, ApiError, REQUEST_ID};
use crate::metrics;
use crate::pages;

/// Most bytes of a request body, but for uploads, which have limits of their own.
const MAX_BODY: usize = 1024 * 1024;

/// Most bytes of the list of a task's artifacts, of which there may be ten thousand.
const MAX_MANIFEST: usize = 16 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(info(
    title = "DistCI",
    description = "Continuous integration without a master. Errors are problem+json."
))]
struct Doc;

fn public() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(cluster::livez))
        .routes(routes!(cluster::readyz))
        .routes(routes!(cluster::version))
        .routes(routes!(hooks::all))
        .routes(routes!(hooks::one))
}

fn guarded() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get, jobs::put, jobs::delete))
        .routes(routes!(schedules::list))
        .routes(routes!(jobs::polls))
        .routes(routes!(jobs::revisions))
        .routes(routes!(jobs::revision))
        .routes(routes!(builds::list, builds::trigger))
        .routes(routes!(builds::get))
        .routes(routes!(builds::state))
        .routes(routes!(builds::events))
        .routes(routes!(builds::cancel))
        .routes(routes!(builds::rerun))
        .routes(routes!(journals::get))
        .routes(routes!(why::get))
        .routes(routes!(builds::stop_task))
        .routes(routes!(builds::answer_task))
        .routes(routes!(builds::report))
        .routes(routes!(consoles::get))
        .routes(routes!(console_lines::lines))
        .routes(routes!(console_lines::search))
        .routes(routes!(grep::grep))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::archive))
        .routes(routes!(artifacts::get))
        .routes(routes!(artifacts::summary))
        .routes(routes!(test_reports::list))
        .routes(routes!(test_reports::history))
        .routes(routes!(cluster::queue))
        .routes(routes!(locks::list))
        .routes(routes!(cluster::workers))
        .routes(routes!(demand::get, demand::ask))
        .routes(routes!(drains::list, drains::order))
        .routes(routes!(cluster::frontends))
        .routes(routes!(vitals::get))
        .routes(routes!(cluster::metrics))
        .routes(routes!(passes::give))
        .routes(routes!(hooks::list))
        .routes(routes!(hooks::show))
        .routes(routes!(hooks::replay))
        .routes(routes!(claims::claim))
        .routes(routes!(claims::beat))
        .routes(routes!(tickets::complete))
        .routes(routes!(tickets::complete_errand))
        .routes(routes!(tickets::release))
        .routes(routes!(tickets::commit))
        .routes(routes!(consoles::append))
        .routes(routes!(artifacts::get_layer))
        .routes(routes!(caches::get))
        .routes(routes!(artifacts::put_summary))
        .merge(uploads())
}

/// Routes with large bodies, which are streamed and limited where they are stored, or have a limit
/// of their own.
fn uploads() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(artifacts::put_layer, artifacts::layer_place))
        .routes(routes!(artifacts::put, artifacts::artifact_place))
        .routes(routes!(caches::find, caches::put, caches::place))
        .layer(DefaultBodyLimit::disable())
        .merge(
            OpenApiRouter::new()
                .routes(routes!(artifacts::put_manifest))
                .layer(DefaultBodyLimit::max(MAX_MANIFEST)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(test_reports::put))
                .layer(DefaultBodyLimit::max(MAX_TEST_REPORT)),
        )
}

/// The same for all frontends of a process, and written when somebody first asks for it.
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| openapi().to_string());

/// The description of the API as JSON.
pub fn openapi() -> serde_json::Value {
    let (_, api) = OpenApiRouter::<App>::with_openapi(Doc::openapi())
        .merge(public())
        .nest("/api/v1", guarded())
        .split_for_parts();
    description::describe(&api)
}

/// All routes, over `app`, opened by `token`.
pub(crate) fn router(app: App, token: &str) -> Router {
    let gate = Gate::new(token);
    let site = (gate.clone(), app.clone());
    let guarded = guarded()
        .layer(Extension(gate.clone()))
        .layer(from_fn_with_state(site.clone(), auth::require));
    let (router, _) = OpenApiRouter::<App>::with_openapi(Doc::openapi())
        .merge(public())
        .nest("/api/v1", guarded)
        .split_for_parts();
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::new(REQUEST_ID, DrawId))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(from_fn_with_state(app.clone(), metrics::count))
        .layer(from_fn(pages::protect))
        .layer(from_fn_with_state(site, error::in_words))
        .layer(CatchPanicLayer::new())
        .layer(DefaultBodyLimit::max(MAX_BODY));
    router
        .route(
            "/api/openapi.json",
            axum::routing::get(async || {
                (
                    [(http::header::CONTENT_TYPE, "application/json")],
                    DESCRIPTION.as_str(),
                )
            }),
        )
        .merge(pages::router(&app, &gate))
        .fallback(async || ApiError::not_found("there is no such path; see /api/openapi.json"))
        .layer(layers)
        .with_state(app)
}

/// Draws an id for a request that has none.
#[derive(Clone, Copy)]
struct DrawId;

impl MakeRequestId for DrawId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let id = distci_model::id::RequestId::from_random(bytes);
        HeaderValue::from_str(id.as_str()).ok().map(RequestId::new)
    }
}

#[cfg(test)]
mod tests;
