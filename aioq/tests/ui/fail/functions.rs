#![allow(unused)]

mod const_fn {
    use aioq::task;

    #[task]
    const fn constant() {}
}

mod extern_fn {
    use aioq::task;

    #[task]
    extern "C" fn foreign() {}
}

mod unsafe_fn {
    use aioq::task;

    #[task]
    async unsafe fn danger() {}
}

mod generic_const {
    use aioq::task;

    #[task]
    async fn generic<const N: usize>(x: [u8; N]) {}
}

mod generic_lifetime {
    use aioq::task;

    #[task]
    async fn generic<'a>(x: &'a str) {}
}

mod generic_type {
    use aioq::task;

    #[task]
    async fn generic<T: Send>(x: T) {}
}

mod where_clause {
    use aioq::task;

    #[task]
    async fn bounded(x: u8)
    where
        u8: Copy,
    {
    }
}

mod self_parameter {
    use aioq::task;

    struct Mailer;

    impl Mailer {
        #[task]
        async fn send(&self, to: &str) {}
    }
}

mod impl_trait_return {
    use aioq::task;

    #[task]
    async fn numbers() -> impl Iterator<Item = u8> {
        0..3
    }
}

mod no_function {
    use aioq::task;

    #[task]
    struct NotAFunction;

    #[task]
    async fn without_body();
}

mod borrowed_result {
    use aioq::task;

    #[task]
    async fn first(text: &str) -> Option<&str> {
        text.get(..1)
    }
}

mod boxed_error {
    use std::error::Error;

    use aioq::task;

    #[task]
    async fn open(number: u8) -> Result<u8, Box<dyn Error>> {
        Ok(number)
    }

    #[task]
    fn read(number: u8) -> Result<u8, Box<dyn Error>> {
        Ok(number)
    }
}

fn main() {}
