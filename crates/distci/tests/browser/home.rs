//! Home: the jobs, and finding one.

use anyhow::Result;
use serde_json::json;

use crate::browser::Browser;
use crate::rig::Server;

#[tokio::test]
async fn jobs_are_listed_and_found() -> Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::start(data.path(), &["standalone"])?;
    for name in ["alpha", "beta"] {
        let task = json!({ "name": "a", "type": "execute-shell", "needs": [],
            "params": { "script": "true" } });
        server.set_job(&json!({ "job_id": name, "tasks": [task] }))?;
    }
    let url = std::fs::read_to_string(data.path().join("url"))?;
    let token = std::fs::read_to_string(data.path().join("token"))?;
    let browser = Browser::open().await?;
    browser.visit(url.trim()).await?;
    browser
        .find("input[name=token]")
        .await?
        .send_keys(token.trim())
        .await?;
    browser.find("form button").await?.click().await?;
    browser.see("main", "alpha").await?;
    browser.see("main", "beta").await?;
    browser.shoot(std::path::Path::new("/tmp/home.png")).await?;
    browser.close().await
}
