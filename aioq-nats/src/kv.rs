//! Small shared state by key: [`NatsKv`].

use std::sync::Arc;
use std::time::Duration;

use aioq::Result;
use aioq::store::{Entry, Expect, KvChange, KvStore};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::connection::{Connection, ConnectionHandle};
use crate::keys;

/// Stores keys in the stream `<PREFIX>_KV`, one message per key.
pub struct NatsKv(ConnectionHandle);

impl NatsKv {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self(ConnectionHandle::new(connection))
    }
}

#[async_trait]
impl KvStore for NatsKv {
    async fn startup(&self) -> Result<()> {
        self.0.startup().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let session = self.0.session()?;
        keys::get(&session, session.link_for_keys().await?, key).await
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>> {
        let session = self.0.session()?;
        keys::get_all(&session, keys).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let session = self.0.session()?;
        let fits = session.check_fits("the value", value.len());
        fits.map_err(|error| error.context(format!("key `{key}`")))?;
        keys::put(&session, key, value, expect, ttl).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool> {
        keys::delete(&*self.0.session()?, key, expect).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let session = self.0.session()?;
        keys::check_prefix(prefix)?;
        keys::scan(&session, prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>> {
        let session = self.0.session()?;
        keys::check_prefix(prefix)?;
        // Changes during a break of the connection are lost. The end of the stream tells the caller
        // to scan.
        let broken = session.link_for_keys().await?.broken_or_denied(session.names.key_notices(prefix));
        let changes = keys::watch(session, None, prefix).await?;
        Ok(changes.take_until(broken).take_until(self.0.ended()).boxed())
    }
}
