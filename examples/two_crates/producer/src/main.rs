//! Kicks what the worker in `../worker` runs. It knows the tasks by their functions, so that the
//! compiler checks the arguments; it has neither their state nor a worker.
//!
//! ```text
//! cargo run -p two-crates-worker -- worker --nats nats://localhost:4222
//! cargo run -p two-crates-producer -- nats://localhost:4222
//! ```

use aioq::{BoxError, Client, TaskHandle};
use aioq_nats::Nats;
use two_crates_tasks::{Line, total};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).ok_or("usage: two-crates-producer nats://HOST:PORT")?;
    let client = Client::connect(Nats::new(url)).await?;
    println!("{} cents", order(&client).await?.result().await?);
    client.shutdown().await?;
    Ok(())
}

async fn order(client: &Client) -> aioq::Result<TaskHandle<u64>> {
    let lines = vec![Line { cents: 250, count: 4 }, Line { cents: 1000, count: 1 }];
    client.kiq(total(lines)).await
}

#[cfg(test)]
mod tests {
    use aioq::Memory;

    use super::*;

    #[tokio::test]
    async fn an_order_is_kicked_to_the_queue_of_its_task() {
        let client = Client::connect(Memory::new()).await.unwrap();
        let record = order(&client).await.unwrap().record().await.unwrap();
        assert_eq!((&*record.task, &*record.queue), ("orders.total", "orders"));
        let arguments = record.arguments.unwrap().to_json();
        assert_eq!(arguments, r#"{"lines":[{"cents":250,"count":4},{"cents":1000,"count":1}]}"#);
    }
}
