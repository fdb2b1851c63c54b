//! The database file, and what every seam needs of it: startup and shutdown, transactions, errors.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aioq::{Error, ErrorKind, Result};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

/// Counters that survive a restart: serial numbers and revisions, which must never repeat.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

/// The database, open as long as one of its users is started.
pub struct File {
    path: PathBuf,
    open: Mutex<Weak<Database>>,
}

impl File {
    pub fn new(path: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), open: Mutex::new(Weak::new()) })
    }

    fn open(&self) -> Result<Arc<Database>> {
        let mut open = lock(&self.open);
        if let Some(database) = open.upgrade() {
            return Ok(database);
        }
        let database = Arc::new(Database::create(&self.path).map_err(|error| failed(error.into()))?);
        *open = Arc::downgrade(&database);
        Ok(database)
    }
}

/// One seam's access to the file, between its startup and its shutdown.
pub struct Access {
    file: Arc<File>,
    database: Mutex<Option<Arc<Database>>>,
    /// Held from the start of a write until everybody has been told of it, so that watchers see the
    /// writes in their order.
    writing: Arc<Mutex<()>>,
}

impl Access {
    pub fn new(file: Arc<File>) -> Self {
        Self { file, database: Mutex::default(), writing: Arc::default() }
    }

    /// Opens the file and makes the tables, so that a read finds them.
    pub async fn startup(&self, tables: fn(&WriteTransaction) -> Done<()>) -> Result<()> {
        *lock(&self.database) = Some(self.file.open()?);
        self.write(tables, |()| {}).await
    }

    pub fn shutdown(&self) {
        *lock(&self.database) = None;
    }

    /// # Errors
    /// `NotStarted` before startup and after shutdown.
    pub fn started(&self) -> Result<()> {
        self.database().map(|_| ())
    }

    fn database(&self) -> Result<Arc<Database>> {
        let not_started = || Error::new(ErrorKind::NotStarted, "the redb backend is not started");
        lock(&self.database).clone().ok_or_else(not_started)
    }

    /// Runs `work` in a transaction; if it succeeds, commits and then runs `tell`. The database
    /// blocks, so this happens on the blocking pool, and to its end even if the future is dropped.
    pub async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Done<R> + Send + 'static,
        tell: impl FnOnce(&R) + Send + 'static,
    ) -> Result<R> {
        let (database, writing) = (self.database()?, self.writing.clone());
        blocking(move || {
            let _writing = lock(&writing);
            let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
            let result = work(&transaction).map_err(|Failed(error)| error)?;
            transaction.commit().map_err(|error| failed(error.into()))?;
            tell(&result);
            Ok(result)
        })
        .await
    }

    /// Runs a read on a snapshot.
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Done<R> + Send + 'static,
    ) -> Result<R> {
        let database = self.database()?;
        blocking(move || {
            let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
            look(&transaction).map_err(|Failed(error)| error)
        })
        .await
    }
}

/// The next value of a counter.
pub fn count(transaction: &WriteTransaction, counter: &str) -> Done<u64> {
    let mut counters = transaction.open_table(COUNTERS)?;
    let next = counters.get(counter)?.map_or(0, |last| last.value()) + 1;
    counters.insert(counter, next)?;
    Ok(next)
}

/// Results of a bulk operation in one transaction. A transaction that failed did nothing, so each
/// result is its error.
pub fn fates<R>(count: usize, done: Result<Vec<Result<R>>>) -> Vec<Result<R>> {
    done.unwrap_or_else(|error| {
        let same = || Error::new(error.kind(), format!("nothing of the bulk was done: {error}"));
        (0..count).map(|_| Err(same())).collect()
    })
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Error::new(ErrorKind::Backend, "a transaction died").with_source(error)))
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Result of work in a transaction; `?` takes errors of the database and our own.
pub type Done<R> = std::result::Result<R, Failed>;

/// An error that ends a transaction without a commit.
pub struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<redb::TableError> for Failed {
    fn from(error: redb::TableError) -> Self {
        Self(failed(error.into()))
    }
}

impl From<redb::StorageError> for Failed {
    fn from(error: redb::StorageError) -> Self {
        Self(failed(error.into()))
    }
}

/// The one place where the database's errors become aioq's.
fn failed(error: redb::Error) -> Error {
    let kind = match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::Io(_) => ErrorKind::Connection,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, "the database failed").with_source(error)
}
