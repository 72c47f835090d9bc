//! The frontends: who is there, and who goes first.
//!
//! Owns the order in which frontends take duties and tickets, the same on each of them without a
//! word between them: rendezvous hashing, so that a frontend that comes or goes changes the order of
//! few things. The order saves effort and decides nothing: whoever acts out of turn loses a race.

use std::sync::{PoisonError, RwLock};

use distci_model::id::{FrontendId, JobKey, TicketKey};
use distci_model::ticket::QueueName;
use distci_store::Card;

/// The frontends as this one knows them.
#[derive(Debug, Default)]
pub(crate) struct Peers(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    own: Option<FrontendId>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: FrontendId,
    card: Card,
    seed: u64,
}

impl Peers {
    /// The id that this frontend is announced by; none while it is not.
    pub(crate) fn own(&self) -> Option<FrontendId> {
        self.read(|state| state.own.clone())
    }

    /// This frontend is announced by another id from now on.
    pub(crate) fn set_own(&self, own: Option<FrontendId>) {
        self.write(|state| state.own = own);
    }

    /// These are all.
    pub(crate) fn set(&self, members: Vec<(FrontendId, Card)>) {
        let member = |(id, card): (FrontendId, Card)| Member {
            seed: hash(id.as_str()),
            id,
            card,
        };
        let members = members.into_iter().map(member).collect();
        self.write(|state| state.members = members);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(FrontendId, Card)> {
        self.read(|state| {
            let members = state.members.iter();
            members
                .map(|member| (member.id.clone(), member.card.clone()))
                .collect()
        })
    }

    /// How many others have a duty towards this ticket before us; none if we are not announced, and
    /// so have no duty at all.
    pub(crate) fn duty_rank(&self, ticket: &TicketKey) -> Option<u32> {
        self.read(|state| state.rank(hash(ticket.build.as_str()), |_| true))
    }

    /// The same of a duty towards a job.
    pub(crate) fn job_rank(&self, job: &JobKey) -> Option<u32> {
        self.read(|state| state.rank(hash(job.as_str()), |_| true))
    }

    /// How many others may claim this ticket before us: first those for whose waiting workers it is.
    pub(crate) fn claim_rank(&self, entry: &QueueName) -> u32 {
        let count = |state: &State| u32::try_from(state.members.len()).unwrap_or(u32::MAX);
        self.read(|state| {
            let wants = |member: &Member| member.card.wants.contains(&entry.class);
            state
                .rank(mark(entry), wants)
                .unwrap_or_else(|| count(state))
        })
    }

    /// How many others come before us for a ticket that has waited longer than the news of its being
    /// there take. Who said a moment ago that workers wait there has no precedence any more: in a
    /// long queue nobody waits, and whom all let go first would race with everybody.
    pub(crate) fn share_rank(&self, entry: &QueueName) -> u32 {
        self.read(|state| state.rank(mark(entry), |_| true).unwrap_or_default())
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    /// How many members come before us: the `first` ones, each group by weight.
    fn rank(&self, what: u64, first: impl Fn(&Member) -> bool) -> Option<u32> {
        let own = self.own.as_ref()?;
        let order = |member: &Member| (first(member), mix(member.seed ^ what));
        let ours = order(self.members.iter().find(|member| member.id == *own)?);
        let before = self.members.iter().filter(|member| order(member) > ours);
        u32::try_from(before.count()).ok()
    }
}

/// A ticket as the order of its claimants sees it.
fn mark(entry: &QueueName) -> u64 {
    hash(entry.key.build.as_str()) ^ hash(entry.key.ticket.as_str())
}

/// The first bytes of a text, which is evenly spread already: ids are hashes or random.
fn hash(text: &str) -> u64 {
    let mut bytes = [0; 8];
    for (byte, from) in bytes.iter_mut().zip(text.bytes()) {
        *byte = from;
    }
    u64::from_le_bytes(bytes)
}

/// The finalizer of Steele, Lea and Flood's `SplitMix64`: every bit depends on every other.
const fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use distci_model::capability::Capabilities;
    use distci_model::id::{BuildKey, BuildNumber};
    use distci_model::ticket::{Priority, Stamp};

    use super::*;

    fn ids(count: u8) -> Vec<FrontendId> {
        (0..count)
            .map(|id| FrontendId::from_random([id.wrapping_mul(83), id, 7, 7, 7, id]))
            .collect()
    }

    fn peers(own: &FrontendId, all: &[FrontendId], wanting: &[FrontendId]) -> Peers {
        let card = |id: &FrontendId| Card {
            wants: wanting
                .contains(id)
                .then(|| Capabilities::control().class())
                .into_iter()
                .collect(),
            ..Card::default()
        };
        let peers = Peers::default();
        peers.set_own(Some(own.clone()));
        peers.set(all.iter().map(|id| (id.clone(), card(id))).collect());
        peers
    }

    fn entry(number: u64) -> QueueName {
        let job = JobKey::derive(&"j".parse().unwrap(), 0);
        let build = BuildKey::derive(&job, BuildNumber::new(number).unwrap());
        QueueName {
            priority: Priority::NORMAL,
            class: Capabilities::control().class(),
            stamp: Stamp::from_millis(1),
            job: job.short().to_owned(),
            key: TicketKey::control(build),
            version: 0,
        }
    }

    #[test]
    fn every_ticket_has_one_first_and_all_agree() {
        let all = ids(5);
        let mut firsts = vec![0; all.len()];
        for number in 1..1000 {
            let ranks: Vec<_> = all
                .iter()
                .map(|own| peers(own, &all, &[]).claim_rank(&entry(number)))
                .collect();
            let mut sorted = ranks.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            firsts[ranks.iter().position(|rank| *rank == 0).unwrap()] += 1;
        }
        assert!(firsts.iter().all(|first| *first > 120), "{firsts:?}");
    }

    #[test]
    fn who_has_a_waiting_worker_goes_first() {
        let all = ids(4);
        for number in 1..100 {
            let rank = |own| peers(own, &all, &all[2..3]).claim_rank(&entry(number));
            assert_eq!(rank(&all[2]), 0);
            assert!(rank(&all[0]) > 0);
        }
    }

    #[test]
    fn a_queue_is_shared_whoever_waits() {
        let all = ids(3);
        for number in 1..100 {
            let rank = |own| peers(own, &all, &all[1..2]).share_rank(&entry(number));
            let mut ranks: Vec<_> = all.iter().map(rank).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2]);
        }
        let first = |own| {
            (1..100)
                .filter(|n| peers(own, &all, &all[1..2]).share_rank(&entry(*n)) == 0)
                .count()
        };
        assert!(all.iter().all(|own| first(own) > 10), "one has all");
    }

    #[test]
    fn who_is_not_announced_has_no_duty_and_claims_last() {
        let all = ids(3);
        let stranger = FrontendId::from_random([9; 6]);
        let peers = peers(&stranger, &all, &[]);
        assert_eq!(peers.duty_rank(&entry(1).key), None);
        assert_eq!(peers.claim_rank(&entry(1)), 3);
        assert_eq!(Peers::default().claim_rank(&entry(1)), 0);
    }
}
