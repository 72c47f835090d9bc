//! Signing in.

use askama::Template;

use crate::assets::Asset;
use crate::frame::Frame;

/// The form that takes the token.
#[derive(Debug, Template)]
#[template(path = "sign_in.html")]
pub struct SignIn {
    /// What surrounds it.
    pub frame: Frame,
    /// Where to go then: an address of this site.
    pub to: String,
    /// Whether the token that was given is not the one.
    pub was_wrong: bool,
}
