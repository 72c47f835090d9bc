//! Elastic workers: what is wanted, and how many workers a pool starts for it.
//!
//! Owns the words between a frontend and a pool, and the law of how many. A pool commands nobody: a
//! worker that was started in vain, because another pool's took the ticket, finds nothing and
//! leaves.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::capability::Capabilities;
use crate::id::{SessionId, WorkerId, WorkerName};

/// Most workers that one pool has at once.
pub const MAX_POOL: usize = 5_000;

/// How much is wanted of one set of capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Demand {
    /// What a worker must offer.
    pub requires: Capabilities,
    /// Tickets that are queued for it.
    pub queued: usize,
    /// Those of them that wait for a lock: no worker could take them.
    #[serde(default)]
    pub blocked: usize,
    /// Claim requests at this frontend that could take one.
    pub workers: usize,
}

/// A run of a worker that a pool started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// Its name.
    pub worker: WorkerName,
    /// Which run of it.
    pub session: SessionId,
}

impl From<WorkerId> for Started {
    fn from(id: WorkerId) -> Self {
        Self {
            worker: id.name,
            session: id.session,
        }
    }
}

/// A pool's question: what is wanted, and which of its workers have found something to do?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DemandRequest {
    /// Its workers, at most [`MAX_POOL`].
    pub workers: Vec<Started>,
    /// The answer that it has. It is told when there is another.
    #[serde(default)]
    pub known: Option<String>,
    /// Seconds that it waits for another.
    #[serde(default)]
    pub wait: u64,
}

/// The answer to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DemandReply {
    /// Names this answer: the same as long as the rest is.
    pub tag: String,
    /// What is wanted.
    pub demand: Vec<Demand>,
    /// Those of its workers that hold a claim.
    pub busy: Vec<WorkerName>,
}

/// A group of like workers of a pool, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// What each of them offers.
    pub offers: Capabilities,
    /// So many there are at least.
    pub min: usize,
    /// So many at most.
    pub max: usize,
    /// So many there are, whatever they do.
    pub alive: usize,
    /// So many of them have yet to take their ticket.
    pub free: usize,
}

impl Group {
    /// How many more it may have.
    fn room(&self) -> usize {
        self.max.saturating_sub(self.alive)
    }

    /// How many it has to start whatever is wanted.
    fn lacking(&self) -> usize {
        self.min.saturating_sub(self.alive).min(self.room())
    }

    /// How many can take a ticket even if none is started for it.
    fn anyway(&self) -> usize {
        self.free + self.lacking()
    }
}

/// How many workers to start in each group, so that as many tickets as can be have a worker, none is
/// started that another makes needless, and every group has its minimum. Of several groups that
/// could serve a ticket, the first does.
///
/// A transport problem: tickets of one set of requirements on one side, workers of one group on the
/// other. Solved by augmenting paths (Ford and Fulkerson; shortest first, after Edmonds and Karp),
/// first over the workers that there are anyway, then over those that could be started. No
/// augmentation takes from a group what it already gives, so the former stay in use.
pub fn starts(groups: &[Group], demand: &[Demand]) -> Vec<usize> {
    let waiting = |row: &Demand| row.queued.saturating_sub(row.blocked);
    let mut flow = Flow {
        fits: demand
            .iter()
            .map(|row| fitting(groups, &row.requires))
            .collect(),
        left: demand.iter().map(waiting).collect(),
        given: vec![vec![0; groups.len()]; demand.len()],
        open: groups.iter().map(Group::anyway).collect(),
    };
    flow.augment();
    for (open, group) in flow.open.iter_mut().zip(groups) {
        *open += group.room() - group.lacking();
    }
    flow.augment();
    let started = |(at, group): (usize, &Group)| {
        let used: usize = flow.given.iter().filter_map(|row| row.get(at)).sum();
        group.lacking() + used.saturating_sub(group.anyway())
    };
    groups.iter().enumerate().map(started).collect()
}

/// Which groups could take a ticket that requires this.
fn fitting(groups: &[Group], requires: &Capabilities) -> Vec<bool> {
    let fits = |group: &Group| group.offers.satisfy(requires);
    groups.iter().map(fits).collect()
}

/// Tickets on their way to workers.
struct Flow {
    /// For each row of the demand, which groups fit.
    fits: Vec<Vec<bool>>,
    /// Tickets of each row without a worker.
    left: Vec<usize>,
    /// Tickets of each row that each group takes.
    given: Vec<Vec<usize>>,
    /// Workers of each group without a ticket.
    open: Vec<usize>,
}

/// A row whose tickets could go to another group.
struct Visit {
    row: usize,
    /// The group that they would leave, and the visit whose tickets would take their place.
    from: Option<(usize, usize)>,
}

/// Tickets of a row that go to another group.
struct Step {
    row: usize,
    joins: usize,
    leaves: Option<usize>,
}

impl Flow {
    /// Gives workers to tickets until no more can be given, by whatever exchange.
    fn augment(&mut self) {
        for row in 0..self.left.len() {
            while self.left[row] > 0 {
                let Some(path) = self.path(row) else {
                    break;
                };
                self.follow(row, &path);
            }
        }
    }

    /// The shortest chain of exchanges that lets a ticket of the row `start` have a worker, from the
    /// end.
    fn path(&self, start: usize) -> Option<Vec<Step>> {
        let mut reached = vec![false; self.open.len()];
        let mut visits = vec![Visit {
            row: start,
            from: None,
        }];
        let mut next = 0;
        while let Some(&Visit { row, .. }) = visits.get(next) {
            for group in 0..reached.len() {
                if !self.fits[row][group] || std::mem::replace(&mut reached[group], true) {
                    continue;
                }
                if self.open[group] > 0 {
                    return Some(steps(&visits, next, group));
                }
                let others = self.given.iter().enumerate();
                let there = others.filter(|(_, given)| given[group] > 0);
                let there: Vec<usize> = there.map(|(other, _)| other).collect();
                for row in there {
                    if visits.iter().all(|visit| visit.row != row) {
                        let from = Some((group, next));
                        visits.push(Visit { row, from });
                    }
                }
            }
            next += 1;
        }
        None
    }

    /// Makes a chain of exchanges, for as many tickets as it bears.
    fn follow(&mut self, start: usize, path: &[Step]) {
        let Some(end) = path.first().map(|step| step.joins) else {
            return;
        };
        let moved = path
            .iter()
            .filter_map(|step| step.leaves.map(|group| self.given[step.row][group]));
        let amount = moved.fold(self.left[start].min(self.open[end]), usize::min);
        for step in path {
            self.given[step.row][step.joins] += amount;
            if let Some(group) = step.leaves {
                self.given[step.row][group] -= amount;
            }
        }
        self.left[start] -= amount;
        self.open[end] -= amount;
    }
}

/// The exchanges that lead from the first visit to the one at `last`, whose tickets join `end`.
fn steps(visits: &[Visit], last: usize, end: usize) -> Vec<Step> {
    let (mut at, mut joins) = (last, end);
    let mut steps = Vec::new();
    loop {
        let Visit { row, from } = visits[at];
        let leaves = from.map(|(group, _)| group);
        steps.push(Step { row, joins, leaves });
        match from {
            Some((group, before)) => (joins, at) = (group, before),
            None => return steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capability::Capability;

    fn set(words: &str) -> Capabilities {
        let words = words.split_whitespace();
        words
            .map(|word| word.parse::<Capability>().unwrap())
            .collect()
    }

    fn group(offers: &str, min: usize, max: usize, alive: usize, free: usize) -> Group {
        Group {
            offers: set(offers),
            min,
            max,
            alive,
            free,
        }
    }

    fn row(requires: &str, queued: usize, blocked: usize) -> Demand {
        Demand {
            requires: set(requires),
            queued,
            blocked,
            workers: 0,
        }
    }

    #[test]
    fn as_many_as_are_wanted_and_no_more() {
        let shell = "execute-shell label:a";
        let cases: [(Vec<Group>, Vec<Demand>, Vec<usize>); 9] = [
            (vec![], vec![row(shell, 3, 0)], vec![]),
            // The minimum, whatever is wanted; and the maximum.
            (vec![group(shell, 2, 9, 1, 1)], vec![], vec![1]),
            (
                vec![group(shell, 0, 2, 0, 0)],
                vec![row(shell, 5, 0)],
                vec![2],
            ),
            (
                vec![group(shell, 0, 2, 2, 0)],
                vec![row(shell, 5, 0)],
                vec![0],
            ),
            // Who is free already, and what waits for locks, counts.
            (
                vec![group(shell, 0, 9, 4, 2)],
                vec![row(shell, 5, 0)],
                vec![3],
            ),
            (
                vec![group(shell, 0, 9, 0, 0)],
                vec![row(shell, 5, 4)],
                vec![1],
            ),
            // Nobody is started for what nobody could do.
            (
                vec![group("label:b", 0, 9, 0, 0)],
                vec![row(shell, 5, 0)],
                vec![0],
            ),
            // The first that fits; the next when it is full.
            (
                vec![
                    group("label:a", 0, 2, 0, 0),
                    group("label:a label:b", 0, 9, 0, 0),
                ],
                vec![row("label:a", 3, 0)],
                vec![2, 1],
            ),
            // What only the first can do makes the other tickets take the second.
            (
                vec![
                    group("label:a label:b", 0, 2, 0, 0),
                    group("label:a", 0, 9, 0, 0),
                ],
                vec![row("label:a", 2, 0), row("label:b", 2, 0)],
                vec![2, 2],
            ),
        ];
        for (groups, demand, expected) in cases {
            assert_eq!(starts(&groups, &demand), expected, "{groups:?} {demand:?}");
        }
    }

    /// Most tickets that can be served by so many workers of each group: by trying everything, one
    /// ticket after the other.
    fn served(fits: &[Vec<bool>], open: &mut [usize]) -> usize {
        let Some((first, rest)) = fits.split_first() else {
            return 0;
        };
        let mut best = served(rest, open);
        for group in 0..open.len() {
            if first[group] && open[group] > 0 {
                open[group] -= 1;
                best = best.max(1 + served(rest, open));
                open[group] += 1;
            }
        }
        best
    }

    const WORDS: [&str; 3] = ["label:a", "label:b", "label:c"];

    fn capabilities() -> impl Strategy<Value = Capabilities> {
        proptest::sample::subsequence(&WORDS[..], 0..=3).prop_map(|words| set(&words.join(" ")))
    }

    fn groups() -> impl Strategy<Value = Vec<Group>> {
        let one = (
            capabilities(),
            0..3_usize,
            0..4_usize,
            0..4_usize,
            0..4_usize,
        );
        let one = one.prop_map(|(offers, min, max, alive, free)| Group {
            offers,
            min,
            max,
            alive,
            free: free.min(alive),
        });
        proptest::collection::vec(one, 0..4)
    }

    fn demands() -> impl Strategy<Value = Vec<Demand>> {
        let one = (capabilities(), 0..3_usize, 0..2_usize);
        let one = one.prop_map(|(requires, queued, blocked)| Demand {
            requires,
            queued,
            blocked,
            workers: 0,
        });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn every_ticket_that_can_have_a_worker_gets_one_and_no_worker_is_wasted(
            groups in groups(),
            demand in demands(),
        ) {
            let started = starts(&groups, &demand);
            let waiting = |row: &Demand| row.queued.saturating_sub(row.blocked);
            let tickets: Vec<Vec<bool>> = demand
                .iter()
                .flat_map(|row| vec![fitting(&groups, &row.requires); waiting(row)])
                .collect();
            let with = |extra: &dyn Fn(usize) -> usize| {
                let open = groups.iter().enumerate();
                let mut open: Vec<usize> = open.map(|(at, group)| group.free + extra(at)).collect();
                served(&tickets, &mut open)
            };
            // Nothing more could be served by starting all that there is room for.
            let served_now = with(&|at| started[at]);
            prop_assert_eq!(served_now, with(&|at| groups[at].room()));
            for (at, group) in groups.iter().enumerate() {
                prop_assert!(started[at] <= group.room());
                prop_assert!(group.alive + started[at] >= group.min.min(group.max));
                // With one fewer a ticket has no worker, or the minimum is not there.
                if started[at] > group.lacking() {
                    let fewer = with(&|other| started[other] - usize::from(other == at));
                    prop_assert!(fewer < served_now);
                }
            }
            let minima = with(&|at| groups[at].lacking());
            let lacking: usize = groups.iter().map(Group::lacking).sum();
            prop_assert_eq!(started.iter().sum::<usize>(), lacking + served_now - minima);
        }
    }
}
