//! Deliveries of webhooks that started no build, kept to be looked at and replayed.
//!
//! Owns `hook/` among the blobs: by day, the body first, then the head that makes it visible. What
//! is older than [`KEPT_DAYS`] goes bit by bit, by whoever keeps or lists: each time the day that has
//! just become too old and one of the year before it, so that nothing stays and nobody works long.

use bytes::Bytes;
use distci_model::Timestamp;
use distci_model::id::DeliveryId;
use distci_model::wire::{Page, WebhookAnswer, WebhookDelivery};

use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{decode, encode};

/// For how many days deliveries are kept.
const KEPT_DAYS: i64 = 30;
/// How far back is looked for older ones.
const SWEPT_DAYS: i64 = 365;
/// Most deliveries of one day: a forge that sends more sends what nobody waits for.
const MAX_A_DAY: usize = 10_000;
/// Largest head and largest body.
const MAX_HEAD: u64 = 1024 * 1024;
const MAX_BODY: u64 = 64 * 1024 * 1024;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

impl Store {
    /// Keeps a delivery, and says under which id. The one under which it is known is that of the
    /// same delivery of the same day, if there is one. `None`: the day is full.
    ///
    /// # Idempotence
    /// Kept again, it takes the place of itself.
    pub async fn keep_delivery(
        &self,
        delivery: WebhookDelivery,
        body: Bytes,
    ) -> Result<Option<DeliveryId>, StoreError> {
        self.sweep_deliveries(delivery.received).await?;
        let known = self.deliveries_of(delivery.id.day()).await?;
        let again = known.iter().find(|id| id.mark() == delivery.id.mark());
        if again.is_none() && known.len() >= MAX_A_DAY {
            return Ok(None);
        }
        let id = again.cloned().unwrap_or_else(|| delivery.id.clone());
        let mut delivery = delivery;
        delivery.id = id.clone();
        delivery.answer.kept = Some(id.clone());
        let packed = zstd::encode_all(&*body, 3);
        let packed = packed.map_err(|error| StoreError::corrupt("a delivery", error))?;
        self.blobs
            .put(&keys::delivery_body(&id), packed.into())
            .await?;
        self.put_head(&delivery).await?;
        Ok(Some(id))
    }

    /// The deliveries that are kept, latest first: at most `limit` of those before `before`.
    pub async fn list_deliveries(
        &self,
        before: Option<&DeliveryId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page<WebhookDelivery>, StoreError> {
        self.sweep_deliveries(now).await?;
        let mut items: Vec<WebhookDelivery> = Vec::new();
        for day in (0..=KEPT_DAYS).filter_map(|back| day(now, back)) {
            if before.is_some_and(|before| before.day() < day.as_str()) {
                continue;
            }
            let ids = self.deliveries_of(&day).await?;
            let earlier = |id: &&DeliveryId| before.is_none_or(|before| *id < before);
            for id in ids.iter().rev().filter(earlier) {
                if items.len() == limit {
                    let next = items.last().map(|last| last.id.to_string());
                    return Ok(Page { items, next });
                }
                items.extend(self.head(id).await?);
            }
        }
        Ok(Page { items, next: None })
    }

    /// A delivery that is kept, with its body.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delivery(&self, id: &DeliveryId) -> Result<(WebhookDelivery, Bytes), StoreError> {
        let missing = || StoreError::missing(format!("delivery {id}"));
        let head = self.head(id).await?.ok_or_else(missing)?;
        let key = keys::delivery_body(id);
        let body = self.blobs.get(&key, MAX_BODY).await?.ok_or_else(missing)?;
        let body = zstd::decode_all(&*body).map_err(|error| StoreError::corrupt(&key, error))?;
        Ok((head, body.into()))
    }

    /// Notes what became of a delivery that was replayed.
    pub async fn note_replay(
        &self,
        mut delivery: WebhookDelivery,
        answer: WebhookAnswer,
    ) -> Result<(), StoreError> {
        delivery.answer = answer;
        self.put_head(&delivery).await
    }

    async fn put_head(&self, delivery: &WebhookDelivery) -> Result<(), StoreError> {
        let key = keys::delivery_head(&delivery.id);
        let text = encode(key.as_str(), delivery)?;
        Ok(self.blobs.put(&key, text).await?)
    }

    async fn head(&self, id: &DeliveryId) -> Result<Option<WebhookDelivery>, StoreError> {
        let key = keys::delivery_head(id);
        let text = self.blobs.get(&key, MAX_HEAD).await?;
        text.map(|text| decode(key.as_str(), &text)).transpose()
    }

    /// The deliveries of a day, in the order in which they came.
    async fn deliveries_of(&self, day: &str) -> Result<Vec<DeliveryId>, StoreError> {
        let names = self.blobs.list(&keys::deliveries(day)).await?;
        let ids = names.iter();
        Ok(ids
            .filter_map(|(name, _)| keys::parse_delivery_head(name))
            .collect())
    }

    async fn sweep_deliveries(&self, now: Timestamp) -> Result<(), StoreError> {
        let any = now.as_millisecond().rem_euclid(SWEPT_DAYS);
        for back in [KEPT_DAYS + 1, KEPT_DAYS + 1 + any] {
            if let Some(day) = day(now, back) {
                self.blobs.delete_prefix(&keys::deliveries(&day)).await?;
            }
        }
        Ok(())
    }
}

/// The day so many days before, eight digits; `None` beyond the calendar.
fn day(now: Timestamp, back: i64) -> Option<String> {
    let millis = now.as_millisecond().checked_sub(back * DAY_MILLIS)?;
    let at = Timestamp::from_millisecond(millis).ok()?;
    Some(at.strftime("%Y%m%d").to_string())
}
