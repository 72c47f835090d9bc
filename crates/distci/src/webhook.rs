//! `distci webhook ls|show|replay|token`: webhooks that started no build, and tokens for generic
//! ones.

use anyhow::{Context, Result};
use distci_model::id::DeliveryId;
use distci_model::wire::{Page, WebhookAnswer, WebhookDelivery};
use sha2::{Digest, Sha256};

use crate::cli::Webhook;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(connection: &Connection, deed: Webhook, out: &mut Out) -> Result<Exit> {
    match deed {
        Webhook::Ls { limit, json } => list(connection, limit, json, out).await?,
        Webhook::Show { id, json } => show(connection, &id, json, out).await?,
        Webhook::Replay { ids, json } => replay(connection, &ids, json, out).await?,
        Webhook::Token { json } => token(json, out)?,
    }
    Ok(Exit::Ok)
}

async fn list(connection: &Connection, limit: usize, json: bool, out: &mut Out) -> Result<()> {
    let client = connection.client()?;
    let mut items: Vec<WebhookDelivery> = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let page = client.webhooks(next.as_deref()).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() || items.len() >= limit {
            break;
        }
    }
    if json {
        // Pages stay whole, so that `next` goes on exactly where this ends.
        return Ok(out.json(&Page { items, next })?);
    }
    let mut table = Table::new(&[
        "ID",
        "AGE",
        "SOURCE",
        "EVENT",
        "REPOSITORY",
        "REF",
        "ANSWER",
    ]);
    for delivery in items.iter().take(limit) {
        let told = delivery.told.as_ref();
        let fact = |name| told.and_then(|told| told.fact(name)).unwrap_or_default();
        table.row([
            delivery.id.as_str().into(),
            view::age(delivery.received, now()).into(),
            delivery.source.to_string().into(),
            delivery.event.as_str().into(),
            fact("repository").into(),
            fact("ref").into(),
            delivery.answer.detail.as_str().into(),
        ]);
    }
    Ok(view::print(&table, "every webhook started a build", out)?)
}

async fn show(connection: &Connection, id: &DeliveryId, json: bool, out: &mut Out) -> Result<()> {
    let view = connection.client()?.webhook(id).await?;
    if json {
        return Ok(out.json(&view)?);
    }
    let delivery = &view.delivery;
    out.line(format_args!(
        "{} {} of {}, {} bytes, at {}",
        delivery.source, delivery.event, delivery.delivery, delivery.bytes, delivery.received
    ))?;
    print(&delivery.answer, out)?;
    Ok(out.line(&view.body)?)
}

async fn replay(
    connection: &Connection,
    ids: &[DeliveryId],
    json: bool,
    out: &mut Out,
) -> Result<()> {
    let client = connection.client()?;
    for id in ids {
        let answer = client.replay_webhook(id).await?;
        if json {
            out.json(&answer)?;
        } else {
            print(&answer, out)?;
        }
    }
    Ok(())
}

fn print(answer: &WebhookAnswer, out: &mut Out) -> Result<()> {
    out.line(&answer.detail)?;
    for build in &answer.builds {
        let known = if build.fresh { "" } else { " (known)" };
        out.line(format_args!("  {}{known}", build.build))?;
    }
    for passed in &answer.passed_over {
        out.line(format_args!("  {}: {}", passed.job, passed.why))?;
    }
    Ok(())
}

fn token(json: bool, out: &mut Out) -> Result<()> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("no random bytes")?;
    let token = data_encoding::HEXLOWER.encode(&bytes);
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()));
    if json {
        let both = serde_json::json!({ "token": token, "token_sha256": hash });
        return Ok(out.json(&both)?);
    }
    out.line(format_args!("token         {token}"))?;
    out.line(format_args!("token_sha256  {hash}"))?;
    Ok(out.say("the token is for the sender, the hash for the job file")?)
}
