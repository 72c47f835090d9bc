//! How a cluster fares, as it is told.

use std::time::Duration;

use anyhow::Result;
use axum::http::StatusCode;
use distci_model::vitals::ClusterView;
use tokio::time::sleep;

use super::pages::Browser;
use super::scene::Scene;

async fn cluster(scene: &Scene) -> Result<ClusterView> {
    let answer = scene.get("/cluster").await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_tells_how_it_fares() -> Result<()> {
    let scene = Scene::new();
    let calm = cluster(&scene).await?;
    assert_eq!(calm.coordination.health, "connected");
    assert!(calm.coordination.read_us.is_some() && calm.coordination.trouble.is_none());
    assert!(
        calm.blobs_us.is_some() && calm.blobs_trouble.is_none(),
        "{calm:?}"
    );
    assert_eq!((calm.lapsed_last_hour, calm.faults.len()), (0, 0));
    scene.build("j").await?;
    // As whoever gives up claims does.
    scene.app.vitals.lapse("the worker is silent", "ticket 7");
    let then = cluster(&scene).await?;
    assert_eq!(then.lapsed_last_hour, 1, "{then:?}");
    let fault = then.faults.first().expect("a fault");
    assert_eq!(
        (fault.what.as_str(), fault.place.as_str()),
        ("the worker is silent", "ticket 7")
    );
    let commits = then.paces.iter().find(|pace| pace.what == "commit");
    assert!(commits.is_some_and(|pace| pace.count > 0), "{then:?}");
    sleep(Duration::from_mins(61)).await;
    assert_eq!(cluster(&scene).await?.lapsed_last_hour, 0);
    let page = Browser::signed_in(&scene).await?.page("/cluster").await?;
    assert!(page.contains("worker is silent"), "{page}");
    Ok(())
}
