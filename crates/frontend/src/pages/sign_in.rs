//! Signing in and out.

use axum::extract::{Query, Request, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use distci_pages::{Place, SignIn};
use serde::Deserialize;

use super::form::{self, Form};
use super::{frame, page, see};
use crate::app::App;
use crate::auth::{self, Gate};
use crate::error::ApiError;

/// Longest address that a reader is led back to.
const MAX_ADDRESS: usize = 2048;

#[derive(Deserialize)]
pub(super) struct Asking {
    #[serde(default)]
    to: String,
}

/// Where one signs in to see an address.
pub(super) fn address(to: &str) -> String {
    let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
    format!("/sign-in?to={to}")
}

/// The form; who is signed in needs none.
pub(super) async fn show(
    State((gate, app)): State<(Gate, App)>,
    Query(Asking { to }): Query<Asking>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if gate.visitor(&app, &headers).is_some() {
        return Ok(see(own(&to)));
    }
    ask(&app, StatusCode::OK, &to)
}

fn ask(app: &App, status: StatusCode, to: &str) -> Result<Response, ApiError> {
    let form = SignIn {
        frame: frame(app, None, Place::Elsewhere),
        to: own(to).to_owned(),
        was_wrong: status != StatusCode::OK,
    };
    page(status, &form)
}

/// Takes the token, and gives a cookie for it.
pub(super) async fn enter(
    State((gate, app)): State<(Gate, App)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    if auth::is_foreign(&headers) {
        return Err(ApiError::not_meant());
    }
    let fields = form::fields(request, &()).await?;
    let field = |name| {
        let mut fields = fields.iter();
        fields
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value.as_str())
    };
    if !gate.admits(field("token"), app.now()) {
        tracing::warn!("somebody gave a wrong token to sign in");
        return ask(&app, StatusCode::FORBIDDEN, field("to"));
    }
    let headers = [
        (SET_COOKIE, gate.sign_in(&app, &headers)),
        (LOCATION, own(field("to")).to_owned()),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// Takes the cookie away, and what the browser has kept of the pages.
pub(super) async fn leave(headers: HeaderMap, form: Form) -> Response {
    let headers = [
        (SET_COOKIE, auth::sign_out(&form.seat.app, &headers)),
        (LOCATION, "/sign-in".to_owned()),
        (
            HeaderName::from_static("clear-site-data"),
            "\"cache\"".to_owned(),
        ),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The address, if it is one of this site; home, if it leads elsewhere or could be taken to.
fn own(to: &str) -> &str {
    let is_path = to.starts_with('/') && !to.starts_with("//");
    let is_plain = to
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain && to.len() <= MAX_ADDRESS {
        to
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_off_the_site() {
        for address in ["/", "/jobs/a/builds/1?x=y", "/queue#top"] {
            assert_eq!(own(address), address);
        }
        for address in [
            "",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "jobs",
            "/a\r\nset-cookie: x=y",
            "/ü",
            &format!("/{}", "x".repeat(4000)),
        ] {
            assert_eq!(own(address), "/", "{address:?}");
        }
    }
}
