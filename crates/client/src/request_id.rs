//! Request ids: drawn once for each wish, kept across its retries.

use distci_model::id::RequestId;

use crate::ClientError;

/// A new request id.
///
/// # Errors
/// [`ClientError::Local`] if the system gives no random bytes.
pub fn new_request_id() -> Result<RequestId, ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(RequestId::from_random(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wishes_have_two_ids() {
        assert_ne!(new_request_id().unwrap(), new_request_id().unwrap());
    }
}
