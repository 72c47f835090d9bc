//! scratch
use distci_proof::watch::*;
use distci_proof::reach::walk;
use stateright::{Checker, Model};
#[test]
fn watch() {
    let p = Rules::PRODUCTION;
    for (name, rules, rank) in [("production", p, 0), ("production", p, 1), ("8", Rules{turns: 8, ..p},0), ("2", Rules{turns: 2, ..p},0), ("no barrier", Rules{barrier:false, ..p},0), ("no time", Rules{in_time:false, ..p},0), ("asleep", Rules{awake:false, ..p},0)] {
        let t = std::time::Instant::now();
        let m = Watching { rules, rank };
        let c = m.clone().checker().spawn_bfs().join();
        println!("{name} {rank} {} {:?}", c.unique_state_count(), t.elapsed());
        if let Some(d) = c.discovery("I12: a claim was given up that a digest had named within its lease") { println!("{:?}", d.into_actions()); }
        else { let w = walk(&m, |s| s.given_up); println!("walk {} stuck {} {:?}", w.states, w.stuck, t.elapsed()); }
    }
}
