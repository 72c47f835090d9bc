//! Keeping secrets out of the console.

use bytes::{Bytes, BytesMut};

const HIDDEN: &[u8] = b"***";
/// A shorter secret would hide half of every word, and is none.
const SHORTEST: usize = 4;

/// Texts that never appear, however the bytes around them are cut into pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mask {
    /// The longest first, for one secret may begin with another.
    secrets: Vec<Vec<u8>>,
}

impl Mask {
    pub(crate) fn new(secrets: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let long = |secret: &Vec<u8>| secret.len() >= SHORTEST;
        let mut secrets: Vec<_> = secrets.into_iter().filter(long).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// Takes what may be shown; what may be the beginning of a secret stays.
    pub(crate) fn apply(&self, waiting: &mut BytesMut) -> Bytes {
        self.take(waiting, true)
    }

    /// Takes everything: nothing follows.
    pub(crate) fn finish(&self, waiting: &mut BytesMut) -> Bytes {
        self.take(waiting, false)
    }

    fn take(&self, waiting: &mut BytesMut, more: bool) -> Bytes {
        if self.secrets.is_empty() {
            return waiting.split().freeze();
        }
        let mut shown = BytesMut::with_capacity(waiting.len());
        let mut at = 0;
        while let Some(rest) = waiting.get(at..).filter(|rest| !rest.is_empty()) {
            // Asked first, because what is one secret already may still become a longer one.
            let unfinished =
                |secret: &Vec<u8>| secret.len() > rest.len() && secret.starts_with(rest);
            if more && self.secrets.iter().any(unfinished) {
                break;
            }
            if let Some(secret) = self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                shown.extend_from_slice(HIDDEN);
                at += secret.len();
            } else {
                shown.extend_from_slice(&rest[..1]);
                at += 1;
            }
        }
        drop(waiting.split_to(at));
        shown.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_is_cut() {
        let mask = Mask::new([b"swordfish".to_vec(), b"sword".to_vec(), b"it".to_vec()]);
        let text = b"it is swordfish, or sword; sword";
        for cut in 0..text.len() {
            let mut waiting = BytesMut::from(&text[..cut]);
            let first = mask.apply(&mut waiting);
            waiting.extend_from_slice(&text[cut..]);
            let second = mask.finish(&mut waiting);
            assert_eq!([first, second].concat(), b"it is ***, or ***; ***");
        }
    }

    #[test]
    fn without_secrets_nothing_is_held_back() {
        let mut waiting = BytesMut::from(&b"text"[..]);
        assert_eq!(Mask::default().apply(&mut waiting), "text");
        assert!(waiting.is_empty());
    }
}
