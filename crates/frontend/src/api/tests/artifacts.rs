//! Artifacts, layers and summaries over HTTP.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use distci_model::wire::{ArtifactView, Claim};
use serde_json::json;

use super::pages::Browser;
use super::scene::{Answer, Scene};

const BUILD: &str = "/jobs/j/builds/1";

async fn put(scene: &Scene, claim: &Claim, what: &str, body: String) -> Result<Answer> {
    let path = format!("/tickets/{}/{}/{what}", claim.ticket, claim.attempt);
    scene.send(Method::PUT, &path, &[], body).await
}

/// A finished build that published `out/a b.html` with this content, and an empty file.
async fn published(content: &str) -> Result<(Scene, Claim)> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let digest = blake3::hash(content.as_bytes()).to_hex().to_string();
    let artifact = |path: &str, bytes: usize| json!({ "path": path, "bytes": bytes, "digest": digest, "content_type": "text/html" });
    let bad = json!({ "artifacts": [artifact("../x", 1)] }).to_string();
    put(&scene, &claim, "artifacts", bad).await?.problem(422)?;
    let far = put(&scene, &claim, "artifacts/10000", String::new()).await?;
    far.problem(422)?;
    put(&scene, &claim, "artifacts/0", content.to_owned()).await?;
    put(&scene, &claim, "artifacts/1", String::new()).await?;
    let both = [
        artifact("out/a b.html", content.len()),
        artifact("empty", 0),
    ];
    let manifest = json!({ "artifacts": both }).to_string();
    put(&scene, &claim, "artifacts", manifest).await?;
    put(&scene, &claim, "layer", "layer".into()).await?;
    put(&scene, &claim, "summary", "# well".into()).await?;
    let layer = json!({ "ticket": claim.ticket.ticket, "attempt": claim.attempt, "bytes": 5 });
    let result = json!({ "verdict": "success", "artifacts": 2, "layer": layer });
    let done = scene.act(&claim, "complete", &result).await?;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{done:?}");
    Ok((scene, claim))
}

/// A finished build that published files of these paths; of each it says that it has as many bytes.
async fn with_files(files: &[(&str, &str, usize)]) -> Result<Scene> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let mut artifacts = Vec::new();
    for (index, (path, content, bytes)) in files.iter().enumerate() {
        let what = format!("artifacts/{index}");
        put(&scene, &claim, &what, (*content).to_owned()).await?;
        let digest = blake3::hash(content.as_bytes()).to_hex().to_string();
        artifacts.push(
            json!({ "path": path, "bytes": bytes, "digest": digest, "content_type": "text/plain" }),
        );
    }
    let manifest = json!({ "artifacts": artifacts }).to_string();
    let taken = put(&scene, &claim, "artifacts", manifest).await?;
    assert!(taken.status.is_success(), "{taken:?}");
    let result = json!({ "verdict": "success", "artifacts": files.len() });
    scene.act(&claim, "complete", &result).await?;
    scene.control().await?;
    Ok(scene)
}

/// What is in an archive.
fn unpacked(archive: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(archive)?);
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8(entry.path_bytes().into_owned())?;
        assert_eq!(entry.header().mode()?, 0o644);
        let mut content = String::new();
        entry.read_to_string(&mut content)?;
        found.insert(path, content);
    }
    Ok(found)
}

#[tokio::test(start_paused = true)]
async fn all_artifacts_or_a_folder_of_them_are_one_archive() -> Result<()> {
    let large = "0123456789".repeat(300_000);
    let long = format!("out/{}/{}", "ä".repeat(100), "b".repeat(200));
    let files = [
        "out/line\nbreak",
        "out/\"><script>",
        "-x",
        "outer",
        "out/empty",
        "out/block",
        &long,
        "large",
    ];
    let block = "b".repeat(512);
    let content = |path: &str| match path {
        "out/empty" => "",
        "out/block" => &block,
        "large" => &large,
        _ => "content",
    };
    let stored = files.map(|path| (path, content(path), content(path).len()));
    let scene = with_files(&stored).await?;
    let all = scene.get(&format!("{BUILD}/artifacts.tar.zst")).await?;
    assert_eq!(all.header("content-type"), "application/zstd");
    let named = "attachment; filename=\"j-1.tar.zst\"";
    assert_eq!(all.header("content-disposition"), named);
    let whole = files.map(|path| (path.to_owned(), content(path).to_owned()));
    let whole = BTreeMap::from(whole);
    assert!(unpacked(&all.body)? == whole);
    let folder = format!("{BUILD}/artifacts.tar.zst?below=out/");
    let folder = unpacked(&scene.get(&folder).await?.body)?;
    assert_eq!(folder.len(), 5);
    assert!(folder.keys().all(|path| path.starts_with("out/")));
    let nothing = format!("{BUILD}/artifacts.tar.zst?below=no/");
    scene.get(&nothing).await?.problem(404)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_archive_of_nothing_is_whole_and_one_that_lacks_something_breaks_off() -> Result<()> {
    let scene = with_files(&[]).await?;
    let nothing = scene.get(&format!("{BUILD}/artifacts.tar.zst")).await?;
    assert_eq!(unpacked(&nothing.body)?, BTreeMap::new());
    let scene = with_files(&[("whole", "content", 7), ("short", "content", 8)]).await?;
    let broken = scene.get(&format!("{BUILD}/artifacts.tar.zst")).await;
    let why = format!("{:#}", broken.expect_err("a truncated archive looked good"));
    assert!(why.contains("lacks 1 bytes"), "{why}");
    Ok(())
}

async fn range(scene: &Scene, path: &str, range: &str) -> Result<Answer> {
    let headers = [("range", range)];
    scene.send(Method::GET, path, &headers, Body::empty()).await
}

#[tokio::test(start_paused = true)]
async fn an_artifact_is_streamed_whole_or_by_range_with_its_digest() -> Result<()> {
    let content = "0123456789".repeat(100_000);
    let (scene, _) = published(&content).await?;
    scene.control().await?;
    let listed: Vec<ArtifactView> = scene.get(&format!("{BUILD}/artifacts")).await?.json()?;
    assert_eq!(listed.len(), 2);
    let path = "/jobs/j/builds/latest-success/artifacts/out/a%20b.html";
    let whole = scene.get(path).await?;
    assert_eq!(whole.status, StatusCode::OK);
    assert!(whole.body == content.as_bytes());
    let digest = blake3::hash(content.as_bytes()).to_hex();
    assert_eq!(whole.header("etag"), format!("\"{digest}\""));
    assert_eq!(whole.header("content-disposition"), "attachment");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    for (wanted, bytes, named) in [
        ("bytes=999998-", "89", "bytes 999998-999999/1000000"),
        ("bytes=0-0", "0", "bytes 0-0/1000000"),
        ("bytes=-1", "9", "bytes 999999-999999/1000000"),
    ] {
        let part = range(&scene, path, wanted).await?;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(&part.body[..], bytes.as_bytes());
        assert_eq!(part.header("content-range"), named);
        assert_eq!(part.header("content-length"), bytes.len().to_string());
    }
    let beyond = range(&scene, path, "bytes=1000000-").await?;
    beyond.problem(416)?;
    let empty = range(&scene, &format!("{BUILD}/artifacts/empty"), "bytes=0-").await?;
    assert_eq!((empty.status, empty.body.len()), (StatusCode::OK, 0));
    let directory = scene.get(&format!("{BUILD}/artifacts/out")).await?;
    directory.problem(404)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_layer_and_a_summary_are_read_back_and_not_replaced() -> Result<()> {
    let (scene, claim) = published("x").await?;
    let layer = format!("/layers/{}/{}", claim.ticket, claim.attempt);
    assert_eq!(&scene.get(&layer).await?.body[..], b"layer");
    scene
        .get(&format!("/layers/{}/2", claim.ticket))
        .await?
        .problem(404)?;
    scene.control().await?;
    let summary = scene.get(&format!("{BUILD}/summary?task=a")).await?;
    assert_eq!(&summary.body[..], b"# well");
    scene
        .get(&format!("{BUILD}/summary?task=b"))
        .await?
        .problem(404)?;
    for what in ["layer", "summary", "artifacts/0"] {
        put(&scene, &claim, what, "late".into())
            .await?
            .problem(410)?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_store_without_addresses_is_used_through_the_frontend() -> Result<()> {
    let (scene, claim) = published("x").await?;
    let layer = format!("/layers/{}/{}?direct=true", claim.ticket, claim.attempt);
    assert_eq!(&scene.get(&layer).await?.body[..], b"layer");
    scene.control().await?;
    let artifact = format!("{BUILD}/artifacts/out/a%20b.html?direct=true");
    assert_eq!(&scene.get(&artifact).await?.body[..], b"x");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_place_is_for_the_holder_of_the_claim() -> Result<()> {
    let scene = Scene::new();
    scene.build("j").await?;
    let claim = scene.task().await?;
    let ask = async |what: &str| {
        let path = format!("/tickets/{}/{}/{what}", claim.ticket, claim.attempt);
        scene.send(Method::POST, &path, &[], Body::empty()).await
    };
    for what in ["layer?bytes=5", "artifacts/0?bytes=5"] {
        assert_eq!(ask(what).await?.status, StatusCode::NO_CONTENT);
    }
    ask("layer").await?.problem(400)?;
    ask("artifacts/10000?bytes=5").await?.problem(422)?;
    scene.finish(&claim).await?;
    for what in ["layer?bytes=5", "artifacts/0?bytes=5"] {
        ask(what).await?.problem(410)?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_report_is_a_stranger_and_needs_its_pass() -> Result<()> {
    let (scene, _) = published("<script src=x.js></script>").await?;
    scene.control().await?;
    let browser = Browser::signed_in(&scene).await?;
    let page = browser
        .get(&format!("{BUILD}/artifacts/out/a%20b.html"))
        .await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("frame-src 'self'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    let html = String::from_utf8(page.body.to_vec())?;
    let at = html
        .split("src=\"/made/")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let at = format!("/made/{}", at.context("no report on the page")?);
    let bare = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty())?;
        scene.raw(request).await
    };
    let report = bare(&at).await?;
    assert_eq!(
        &report.body[..],
        b"<script src=x.js></script>",
        "{report:?}"
    );
    let policy = report.header("content-security-policy");
    assert!(policy.starts_with("sandbox allow-scripts;"), "{policy}");
    assert!(
        !policy.contains("connect-src") && policy.contains("default-src 'none'"),
        "{policy}"
    );
    assert_eq!(report.header("x-frame-options"), "SAMEORIGIN");
    assert_eq!(report.header("x-content-type-options"), "nosniff");
    // The pass is for the artifacts of this build, and for nothing else.
    for wrong in [
        at.replace("/j/1/", "/j/2/"),
        at.replacen('.', ".0", 1),
        at.replace("a%20b", "c"),
    ] {
        bare(&wrong).await?.problem(404)?;
    }
    // No page of ours takes it for a script of its own.
    let request = Request::builder().uri(&at);
    let request = request.header("sec-fetch-site", "same-origin");
    let request = request.header("sec-fetch-dest", "script");
    scene
        .raw(request.body(Body::empty())?)
        .await?
        .problem(404)?;
    let pass = at.split('/').nth(2).context("no pass")?;
    let request = Request::builder().uri(format!("/api/v1{BUILD}"));
    let request = request.header("cookie", format!("distci={pass}"));
    let refused = scene.raw(request.body(Body::empty())?).await?;
    refused.problem(401)?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn artifacts_are_shown_by_folder() -> Result<()> {
    let (scene, _) = published("x").await?;
    scene.control().await?;
    let browser = Browser::signed_in(&scene).await?;
    let build = browser.page(BUILD).await?;
    assert!(build.contains("artifacts.tar.zst?below=out%2F"), "{build}");
    let top = browser.page(&format!("{BUILD}/artifacts")).await?;
    assert!(
        top.contains("below=out%2F") && top.contains(">empty</a>"),
        "{top}"
    );
    let out = browser
        .page(&format!("{BUILD}/artifacts?below=out/"))
        .await?;
    assert!(out.contains("artifacts/out/a%20b.html"), "{out}");
    let gone = browser.get(&format!("{BUILD}/artifacts/none")).await?;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    Ok(())
}
