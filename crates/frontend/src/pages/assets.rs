//! What pages refer to. An address names its content, so a browser asks for it once.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use distci_pages::assets::Asset;

use crate::error::ApiError;

pub(super) async fn get(Path(name): Path<String>) -> Result<Response, ApiError> {
    let asset = Asset::at(&format!("/assets/{name}"));
    let asset = asset.ok_or_else(|| ApiError::not_found("there is no such asset"))?;
    let headers = [
        (CONTENT_TYPE, asset.content_type()),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.bytes()).into_response())
}
