//! Lists that come in pages.

use distci_client::ClientError;
use distci_model::wire::Page;

/// All entries, page after page; `page` gives the one that begins at a cursor.
pub(crate) async fn all<T>(
    page: impl AsyncFn(Option<&str>) -> Result<Page<T>, ClientError>,
) -> Result<Vec<T>, ClientError> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = page(cursor.as_deref()).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}
