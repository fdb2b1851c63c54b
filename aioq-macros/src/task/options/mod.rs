//! The options of `#[task(..)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, LitStr, Path, Result, Token, token};

use crate::errors::Errors;
use crate::task::params::Params;

mod backoff;
mod duration;
mod labels;
mod list;
mod rate;
mod retry;
mod schedule;
mod unique;
mod value;

use labels::Label;
use list::{Known, List};
use retry::Retry;
use schedule::{Missed, Overlap};
use unique::Unique;
use value::Spanned;

const OPTIONS: List = List {
    entry: "option",
    of: None,
    known: &[
        Known { name: "name", example: "name = \"email.send\"" },
        Known { name: "queue", example: "queue = \"email\"" },
        Known { name: "priority", example: "priority = 3" },
        Known { name: "timeout", example: "timeout = \"30s\"" },
        Known { name: "retry", example: "retry(max = 5, backoff = \"1s..5m\")" },
        Known { name: "ttl", example: "ttl = \"1h\"" },
        Known { name: "keep", example: "keep = \"1h\"" },
        Known { name: "keep_failed", example: "keep_failed = \"30d\"" },
        Known { name: "unique", example: "unique(by = parameter, within = \"10m\")" },
        Known { name: "rate", example: "rate = \"100/s\"" },
        Known { name: "cron", example: "cron = \"0 3 * * *\"" },
        Known { name: "tz", example: "tz = \"Europe/Berlin\"" },
        Known { name: "every", example: "every = \"10m\"" },
        Known { name: "missed", example: "missed = \"once\"" },
        Known { name: "overlap", example: "overlap = \"skip\"" },
        Known { name: "ack", example: "ack = \"on_receive\"" },
        Known { name: "labels", example: "labels(team = \"growth\")" },
        Known { name: "fallible", example: "fallible" },
        Known { name: "alias", example: "alias(\"old_name\")" },
        Known { name: "crate", example: "crate = path" },
    ],
    elsewhere: &[
        ("max_retries", "`retry(max = 3)`"),
        ("retries", "`retry(max = 3)`"),
        ("attempts", "`retry(max = 3)`, which counts the retries after the first run"),
        ("max_attempts", "`retry(max = 3)`, which counts the retries after the first run"),
        ("max_tries", "`retry(max = 3)`, which counts the retries after the first run"),
        ("retry_on_error", "`retry(max = 3)`"),
        ("backoff", "`retry(max = 5, backoff = \"1s..5m\")`"),
        ("retry_delay", "`retry(max = 5, backoff = \"10s\")`"),
        ("retry_backoff", "`retry(max = 5, backoff = \"1s..5m\")`"),
        ("autoretry_for", "`retry(max = 5, when = path)`"),
        ("task_name", "`name = \"email.send\"`"),
        ("queue_name", "`queue = \"email\"`"),
        ("time_limit", "`timeout = \"30s\"`"),
        ("soft_time_limit", "`timeout = \"30s\"`"),
        ("expires", "`ttl = \"1h\"`"),
        ("expires_in", "`ttl = \"1h\"`"),
        ("result_ttl", "`keep = \"1h\"`"),
        ("keep_result", "`keep = \"1h\"`"),
        ("rate_limit", "`rate = \"100/s\"`"),
        ("schedule", "`cron = \"0 3 * * *\"` or `every = \"10m\"`"),
        ("crontab", "`cron = \"0 3 * * *\"`"),
        ("timezone", "`tz = \"Europe/Berlin\"`"),
        ("acks_late", "`ack = \"on_save\"`, which is the default"),
        ("bind", "a parameter `#[inject] ctx: &Context`"),
        ("delay", "it at the call: `.delay(\"5m\").kiq()`"),
        ("countdown", "it at the call: `.delay(\"5m\").kiq()`"),
        ("eta", "it at the call: `.at(time).kiq()`"),
        ("id", "it at the call: `.id(\"order-7\").kiq()`"),
        ("job_id", "it at the call: `.id(\"order-7\").kiq()`"),
    ],
};

/// Time of the ack of a message.
#[derive(Clone, Copy)]
enum Ack {
    OnSave,
    OnReceive,
    AfterRun,
}

/// The options as written; each one is valid on its own.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    queue: Option<String>,
    priority: Option<u8>,
    timeout: Option<u64>,
    ttl: Option<u64>,
    keep: Option<u64>,
    keep_failed: Option<u64>,
    retry: Option<Retry>,
    ack: Option<Ack>,
    labels: Vec<Label>,
    aliases: Vec<LitStr>,
    /// True if the return type is a `Result` under another name.
    pub(crate) fallible: bool,
    /// Path of the `aioq` crate.
    pub(crate) krate: Option<Path>,
    unique: Option<Spanned<Unique>>,
    rate: Option<Span>,
    cron: Option<Spanned<String>>,
    tz: Option<Spanned<String>>,
    /// In milliseconds.
    every: Option<Spanned<u64>>,
    missed: Option<Spanned<Missed>>,
    overlap: Option<Spanned<Overlap>>,
}

impl Options {
    /// Reads the options. A wrong option is reported and left out.
    pub(crate) fn read(attr: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut found = Errors::default();
        let read = |input: ParseStream<'_>| {
            OPTIONS.read(input, &mut found, |option, span, input, errors| {
                options.read_option(option, span, input, errors)
            });
            Ok(())
        };
        let read = read.parse2(attr);
        errors.append(found);
        errors.note(read);
        options
    }

    fn read_option(
        &mut self,
        option: &str,
        span: Span,
        input: ParseStream<'_>,
        errors: &mut Errors,
    ) -> Result<()> {
        match option {
            "name" => self.name = Some(value::name(input, "name of the task", "email.send")?),
            "queue" => self.queue = Some(value::name(input, "name of the queue", "email")?),
            "priority" => {
                self.priority = u8::try_from(value::number(input, "a priority (lower first)", 9)?).ok()
            }
            "timeout" => self.timeout = Some(value::milliseconds(input)?),
            "ttl" => self.ttl = Some(value::milliseconds(input)?),
            "keep" => self.keep = Some(value::milliseconds(input)?),
            "keep_failed" => self.keep_failed = Some(value::milliseconds(input)?),
            "retry" => {
                self.retry = Some(value::parenthesized(input, |input| Ok(Retry::read(input, span, errors)))?)
            }
            "ack" => self.ack = Some(value::word(input, "ack moment", &ACK_MOMENTS)?),
            "labels" => self.labels = value::parenthesized(input, |input| Ok(labels::read(input, errors)))?,
            "fallible" => self.fallible = true,
            "alias" => self.aliases = value::parenthesized(input, read_aliases)?,
            "crate" => self.krate = Some(read_crate(input)?),
            _ => return self.read_engine_option(option, span, input, errors),
        }
        Ok(())
    }

    fn read_engine_option(
        &mut self,
        option: &str,
        span: Span,
        input: ParseStream<'_>,
        errors: &mut Errors,
    ) -> Result<()> {
        if option == "unique" {
            let unique = if input.peek(token::Paren) {
                value::parenthesized(input, |input| Ok(Unique::read(input, span, errors)))?
            } else {
                Some(Unique::plain())
            };
            self.unique = unique.map(|value| Spanned { value, span });
            return Ok(());
        }
        match option {
            "missed" => {
                let value = value::word(input, "choice for missed ticks", &schedule::MISSED)?;
                self.missed = Some(Spanned { value, span });
                return Ok(());
            }
            "overlap" => {
                let value = value::word(input, "choice for overlapping ticks", &schedule::OVERLAP)?;
                self.overlap = Some(Spanned { value, span });
                return Ok(());
            }
            _ => {}
        }
        let literal = value::text(input, example_value(option))?;
        let text = literal.value();
        let refused = |message| Error::new(literal.span(), message);
        match option {
            "rate" => {
                rate::parse(&text).map_err(refused)?;
                self.rate = Some(span);
            }
            "cron" => {
                schedule::check_cron(&text).map_err(refused)?;
                self.cron = Some(Spanned { value: text, span });
            }
            "tz" => {
                schedule::check_time_zone(&text).map_err(refused)?;
                self.tz = Some(Spanned { value: text, span });
            }
            _ => {
                let value = schedule::milliseconds(&text).map_err(refused)?;
                self.every = Some(Spanned { value, span });
            }
        }
        Ok(())
    }

    /// The predicate on the task's error.
    pub(crate) fn retry_when(&self) -> Option<&syn::Expr> {
        self.retry.as_ref()?.when.as_ref()
    }

    /// Checks options against each other and against the parameters of the task.
    pub(crate) fn check(&self, name: &str, fallible: bool, params: &Params, errors: &mut Errors) {
        errors.note(self.check_aliases(name));
        if let Some(when) = self.retry_when().filter(|_| !fallible) {
            let message = "`when` looks at the task's error, but the task returns no `Result`";
            errors.push(Error::new_spanned(when, message));
        }
        let mut found = Errors::default();
        found.note(self.check_schedule(params));
        if let Some(unique) = &self.unique {
            found.note(unique.value.check(params));
            found.note(self.check_ack(unique));
        }
        if found.is_empty() {
            self.refuse_unsupported(&mut found);
        }
        errors.append(found);
    }

    /// Refuses a unique job that is acked before it is saved: nobody could tell whether it has
    /// ended.
    fn check_ack(&self, unique: &Spanned<Unique>) -> Result<()> {
        if unique.value.until_start || matches!(self.ack, None | Some(Ack::OnSave)) {
            return Ok(());
        }
        let message = "a unique job is acked once it is saved: remove `ack`, or free the key at the start with `unique(until = \"start\")`";
        Err(Error::new(unique.span, message))
    }

    fn check_aliases(&self, name: &str) -> Result<()> {
        for (position, alias) in self.aliases.iter().enumerate() {
            if alias.value() == name {
                return Err(Error::new(alias.span(), format!("`{name}` is the task's name already")));
            }
            if self.aliases.iter().take(position).any(|earlier| earlier.value() == alias.value()) {
                return Err(Error::new(alias.span(), format!("duplicate alias `{}`", alias.value())));
            }
        }
        Ok(())
    }

    fn check_schedule(&self, params: &Params) -> Result<()> {
        if let (Some(_), Some(every)) = (&self.cron, &self.every) {
            return Err(Error::new(every.span, "a task has one schedule: `cron` or `every`"));
        }
        if let (None, Some(tz)) = (&self.cron, &self.tz) {
            return Err(Error::new(tz.span, "`tz` is the time zone of `cron`, which is missing"));
        }
        let cron = self.cron.as_ref().map(|cron| cron.span);
        let Some(schedule) = cron.or(self.every.as_ref().map(|every| every.span)) else {
            let missed = self.missed.as_ref().map(|missed| ("missed", missed.span));
            let policy = missed.or(self.overlap.as_ref().map(|overlap| ("overlap", overlap.span)));
            return policy.map_or(Ok(()), |(name, span)| {
                Err(Error::new(span, format!("`{name}` is about a schedule: add `cron` or `every`")))
            });
        };
        if let Some(unique) = self.unique.as_ref().filter(|unique| unique.value.is_debounced()) {
            return Err(Error::new(
                unique.span,
                "a task with a schedule cannot be debounced: each tick runs by itself",
            ));
        }
        let required: Vec<&str> =
            params.wire().filter(|param| param.default.is_none()).map(|param| param.name.as_str()).collect();
        if required.is_empty() {
            return Ok(());
        }
        let names = required.join("`, `");
        let message =
            format!("a schedule has no arguments to give: mark `{names}` with `#[default]` or `#[inject]`");
        Err(Error::new(schedule, message))
    }

    /// Refuses the options that no worker supports yet.
    fn refuse_unsupported(&self, errors: &mut Errors) {
        if let Some(span) = self.rate {
            errors.push(Error::new(span, "`rate` is not yet supported"));
        }
    }

    /// The options as builder calls of the runtime.
    pub(crate) fn to_tokens(&self, rt: &TokenStream) -> TokenStream {
        let queue = self.queue.as_ref().map(|queue| quote!(.queue(#queue)));
        let priority = self.priority.map(|priority| quote!(.priority(#priority)));
        let timeout = self.timeout.map(|timeout| quote!(.timeout_ms(#timeout)));
        let ttl = self.ttl.map(|ttl| quote!(.ttl_ms(#ttl)));
        let keep = self.keep.map(|keep| quote!(.keep_ms(#keep)));
        let keep_failed = self.keep_failed.map(|keep| quote!(.keep_failed_ms(#keep)));
        let retry = self.retry.as_ref().map(|retry| retry.to_tokens(rt)).map(|retry| quote!(.retry(#retry)));
        let ack = self.ack.map(|ack| match ack {
            Ack::OnSave => quote!(.ack(#rt::AckMode::OnSave)),
            Ack::OnReceive => quote!(.ack(#rt::AckMode::OnReceive)),
            Ack::AfterRun => quote!(.ack(#rt::AckMode::AfterRun)),
        });
        let unique = self.unique.as_ref().map(|unique| unique.value.to_tokens(rt));
        let unique = unique.map(|unique| quote!(.unique(#unique)));
        let schedule = self.schedule_tokens(rt).map(|schedule| quote!(.schedule(#schedule)));
        let labels = self.labels.iter().map(|label| label.to_tokens(rt));
        let labels = (!self.labels.is_empty()).then(|| quote!(.labels(&[#(#labels),*])));
        let aliases = self.aliases.iter().map(LitStr::value);
        let aliases = (!self.aliases.is_empty()).then(|| quote!(.aliases(&[#(#aliases),*])));
        quote! {
            #rt::TaskOptions::new() #queue #priority #timeout #ttl #keep #keep_failed #retry #ack #unique #schedule #labels #aliases
        }
    }

    fn schedule_tokens(&self, rt: &TokenStream) -> Option<TokenStream> {
        let when = match (&self.cron, &self.every) {
            (Some(Spanned { value: cron, .. }), _) => {
                let zone = self.tz.as_ref().map_or("UTC", |zone| &zone.value);
                quote!(cron(#cron, #zone))
            }
            (None, Some(Spanned { value: every, .. })) => quote!(every_ms(#every)),
            (None, None) => return None,
        };
        let missed = self.missed.as_ref().map(|missed| missed.value.to_tokens(rt));
        let missed = missed.map(|missed| quote!(.missed(#missed)));
        let overlap = self.overlap.as_ref().map(|overlap| overlap.value.to_tokens(rt));
        let overlap = overlap.map(|overlap| quote!(.overlap(#overlap)));
        Some(quote!(#rt::ScheduleOptions::#when #missed #overlap))
    }
}

const ACK_MOMENTS: [(&str, Ack); 3] =
    [("on_save", Ack::OnSave), ("on_receive", Ack::OnReceive), ("after_run", Ack::AfterRun)];

fn example_value(option: &str) -> &'static str {
    let known = OPTIONS.known.iter().find(|known| known.name == option);
    known.and_then(|known| known.example.split('"').nth(1)).unwrap_or_default()
}

fn read_aliases(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    if input.is_empty() {
        return Err(input.error("write the older names: `alias(\"old_name\")`"));
    }
    let mut aliases = Vec::new();
    while !input.is_empty() {
        let alias = value::literal(input, "old_name")?;
        value::check_name(&alias, "alias")?;
        aliases.push(alias);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(aliases)
}

fn read_crate(input: ParseStream<'_>) -> Result<Path> {
    input.parse::<Token![=]>()?;
    Path::parse_mod_style(input)
}

#[cfg(test)]
mod tests;
