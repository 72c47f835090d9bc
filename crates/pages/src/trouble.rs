//! What went wrong, for who came with a browser.

use askama::Template;
use distci_model::wire::Problem;

use crate::assets::Asset;
use crate::frame::Frame;

/// A problem as a page.
#[derive(Debug, Template)]
#[template(path = "trouble.html")]
pub struct Trouble {
    /// What surrounds it.
    pub frame: Frame,
    /// What went wrong.
    pub problem: Problem,
}

impl Trouble {
    /// What can be done about it, where that is known.
    fn advice(&self) -> &'static str {
        match self.problem.status {
            401 => "Sign in, and do it again.",
            403 => "Go back, load the page again, and do it again.",
            404 => "It may have been removed, or the address is not right.",
            503 => "Nothing is lost. It is worth another try in a moment.",
            500 => "The operator finds the request in the logs by its number.",
            _ => "",
        }
    }
}
