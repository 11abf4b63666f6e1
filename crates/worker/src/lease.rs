//! The lease on a claimed work item. A job must hold it to write to the store.

use futures_util::future::BoxFuture;
use herm_store::queue::{self, Lease};
use herm_store::{Error, Store, Tx};

/// The lease on a claimed work item, with the store that it belongs to. A job changes the store only through
/// [`HeldLease::transaction`], so a worker that has lost the lease writes nothing.
#[derive(Clone)]
pub(crate) struct HeldLease {
    store: Store,
    lease: Lease,
}

impl HeldLease {
    pub(crate) fn new(store: Store, lease: Lease) -> Self {
        Self { store, lease }
    }

    /// Runs a transaction that fails with [`Error::LeaseLost`] unless this is still the latest claim of the work item.
    /// The work item stays locked until the transaction ends. `body` receives the lease, with which it can complete or
    /// postpone the work item.
    pub(crate) async fn transaction<T, F>(&self, name: &'static str, body: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx, Lease) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
    {
        let lease = self.lease.clone();
        self.store
            .transaction(name, move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &lease).await?;
                    body(tx, lease).await
                })
            })
            .await
    }
}

impl std::ops::Deref for HeldLease {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}
