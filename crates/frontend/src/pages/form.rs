//! What a form of a page sends.
//!
//! Owns the proof that it was one of our pages that sent it.

use axum::extract::{FromRequest, Request};
use distci_model::id::RequestId;

use super::Seat;
use crate::app::App;
use crate::error::ApiError;

/// The fields of a form that was meant, with who sent it.
pub(crate) struct Form {
    pub(crate) seat: Seat,
    fields: Vec<(String, String)>,
}

impl FromRequest<App> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let seat =
            <Seat as axum::extract::FromRequestParts<App>>::from_request_parts(&mut parts, app);
        let (seat, request) = (seat.await?, Request::from_parts(parts, body));
        let fields = fields(request, app).await?;
        let form = Self { seat, fields };
        if form.seat.visitor.meant(form.get("csrf")) {
            Ok(form)
        } else {
            Err(ApiError::not_meant())
        }
    }
}

impl Form {
    /// The value of a field; none if it is not there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The fields whose names begin with this, without it.
    pub(crate) fn named(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter_map(move |(name, value)| {
            let name = name.strip_prefix(prefix)?;
            Some((name, value.as_str()))
        })
    }

    /// The id that the page was given for this wish, so that a form that is sent twice asks once.
    pub(crate) fn request(&self) -> Result<RequestId, ApiError> {
        let id = self.get("request").unwrap_or_default().parse();
        id.map_err(|_| ApiError::malformed("the form has no id of its own"))
    }
}

/// The fields of a form, in their order.
pub(super) async fn fields<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Vec<(String, String)>, ApiError> {
    let body = axum::body::Bytes::from_request(request, state).await;
    let body = body.map_err(|rejection| ApiError::too_large(rejection.body_text()))?;
    let fields = form_urlencoded::parse(&body);
    Ok(fields
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect())
}
