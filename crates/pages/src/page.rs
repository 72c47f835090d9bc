//! What all pages have in common.

use askama::Template;

/// A page that could not be written out: a fault of ours.
#[derive(Debug, thiserror::Error)]
#[error("a page cannot be rendered")]
pub struct Unrendered(#[from] askama::Error);

/// A whole page.
pub trait Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// [`Unrendered`], which no page gives whose parts can be displayed.
    fn html(&self) -> Result<String, Unrendered>;
}

impl<T: Template> Page for T {
    fn html(&self) -> Result<String, Unrendered> {
        Ok(self.render()?)
    }
}
