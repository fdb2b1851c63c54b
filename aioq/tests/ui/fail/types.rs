#![allow(unused)]

mod error_not_error {
    use aioq::task;

    struct NoError;

    #[task]
    async fn open() -> Result<u8, NoError> {
        Err(NoError)
    }
}

mod fallible_without_result {
    use aioq::task;

    #[task(fallible)]
    async fn sure() -> u8 {
        1
    }
}

mod injected_awaited {
    use aioq::task;

    struct Pool;

    #[task]
    async fn with_state(number: i64, #[inject] pool: &Pool) -> i64 {
        let _ = pool;
        number
    }

    async fn runs() {
        let _ = with_state(1).await;
    }
}

mod not_injected {
    use aioq::{Context, task};

    struct Pool;

    #[task]
    async fn context(ctx: &Context) {
        let _ = ctx;
    }

    #[task]
    async fn owned_context(ctx: Context) {
        let _ = ctx;
    }

    #[task]
    async fn pool(pool: &Pool) {
        let _ = pool;
    }

    #[task]
    fn blocking(pool: &Pool) {
        let _ = pool;
    }
}

mod not_serialize {
    use aioq::task;

    struct Socket;

    #[task]
    async fn send(socket: Socket) {}
}

mod options_awaited {
    use aioq::task;

    #[task]
    async fn add(a: i64, b: i64) -> i64 {
        a + b
    }

    async fn runs() {
        let _ = add(1, 2).delay("1s").await;
    }
}

mod output_not_serialize {
    use aioq::task;

    struct Socket;

    #[task]
    async fn open() -> Socket {
        Socket
    }
}

fn main() {}
