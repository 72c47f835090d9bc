//! Calls about webhooks that started no build.

use distci_model::id::DeliveryId;
use distci_model::wire::{Page, WebhookAnswer, WebhookDelivery, WebhookView};

use crate::call::Call;
use crate::path::Path;
use crate::{Client, ClientError};

impl Client {
    /// A page of the kept deliveries, latest first, from `cursor` on.
    pub async fn webhooks(
        &self,
        cursor: Option<&str>,
    ) -> Result<Page<WebhookDelivery>, ClientError> {
        let path = Path::api(&["webhooks"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A kept delivery with its body.
    pub async fn webhook(&self, id: &DeliveryId) -> Result<WebhookView, ClientError> {
        let path = Path::api(&["webhooks", id.as_str()]);
        self.answer(&Call::get(path)).await?.json()
    }

    /// Offers a kept delivery to the jobs as they are now.
    pub async fn replay_webhook(&self, id: &DeliveryId) -> Result<WebhookAnswer, ClientError> {
        let path = Path::api(&["webhooks", id.as_str(), "replay"]);
        self.answer(&Call::post(path)).await?.json()
    }
}
