//! The tasks of a broker's lake: the views, and the cleaner beside them.

use std::sync::Arc;

use floe_env::Task;
use floe_view::Views;

use crate::{
    cleaner,
    places::{Beside, Running},
    shared::Shared,
    view::TableView,
};

/// A task that ends when this is dropped.
struct Companion(Task<()>);

impl Drop for Companion {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs the views and the cleaner until it is dropped.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    views: Views<TableView<Running>>,
    rebuilds: Views<TableView<Beside>>,
) {
    let cleaner = cleaner::run(Arc::clone(&shared), views.owner().to_owned());
    let _cleaner = Companion(shared.env.spawn("lake cleaner", cleaner));
    let _rebuilds = Companion(shared.env.spawn("lake rebuilds", rebuilds.run()));
    views.run().await;
}
