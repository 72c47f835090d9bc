//! Choices drawn from a seed, so that a failing run can be had again.
//!
//! Owns the one source of chance of everything that is simulated. Never reads a clock or asks the
//! machine for randomness.

use distci_model::id::RequestId;

use super::PerMille;

/// Steele, Lea and Flood's `SplitMix64`: small, and any seed will do.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as `seed` says.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// A number, any.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Yes, so many times in a thousand.
    pub const fn roll(&mut self, odds: PerMille) -> bool {
        self.draw() % 1000 < odds.0 as u64
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % (end as u64)).unwrap_or(0)
    }

    /// Yes, so many times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them, if there are any.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.below(of.len())])
    }

    /// The id of a request.
    pub fn request(&mut self) -> RequestId {
        RequestId::derive(&self.draw().to_string())
    }

    /// Dice of its own for somebody else.
    #[must_use]
    pub const fn split(&mut self) -> Self {
        Self(self.draw())
    }
}
