//! Requests for channels. The channel's plugin answers in a worker that is for requests alone, so that whatever one of
//! them does to it, no push is touched. What it tells of tasks is stored before its answer is sent: a sender that has
//! its answer need not come again, and one that has none does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reunion_host::{CallOptions, Callback, ChannelConnector, Part, Plugins};
use reunion_ledger::Ledger;
use reunion_model::fault;
use reunion_model::limits::CALLBACKS_AT_ONCE_MAX;
use reunion_model::plugin::{ErrorClass, HttpRequest, PluginError};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::app::App;
use crate::components::{self, Trouble};
use crate::config::{Component, Config, Diagnostics};
use crate::dispatch;
use crate::failure::Failure;
use crate::state::{State, now_us};

use super::{Answer, answer, not_now, with};

/// How often the same trouble is told while it lasts.
const TOLD_AGAIN: Duration = Duration::from_secs(300);

/// The channels that take requests.
pub struct Callbacks(BTreeMap<String, Arc<Endpoint>>);

impl Callbacks {
    /// Finds the channels whose plugins answer requests. Their workers are started by the first request.
    ///
    /// # Errors
    /// What is wrong with the config.
    pub fn new(app: &App, state: &State) -> Result<Self, Failure> {
        let config = Arc::new(app.config.clone());
        let (mut endpoints, mut findings) = (BTreeMap::new(), Diagnostics::default());
        for name in config.channels.keys() {
            match components::settings(&config, &app.plugins, Component::Channel, name) {
                Ok(settings) if !settings.plugin.manifest().capabilities.callback => {}
                // Whether a library that cannot be looked at now takes requests is found out when one comes.
                Ok(_) | Err(Trouble::Plugin(_)) => {
                    let endpoint = Endpoint {
                        name: name.clone(),
                        config: Arc::clone(&config),
                        plugins: app.plugins.clone(),
                        ledger: state.ledger.clone(),
                        channel: Mutex::default(),
                        turns: Arc::new(Semaphore::new(CALLBACKS_AT_ONCE_MAX)),
                        told: Mutex::default(),
                    };
                    endpoints.insert(name.clone(), Arc::new(endpoint));
                }
                Err(Trouble::Config(errors)) => findings.extend(errors),
            }
        }
        if findings.has_errors() { Err(findings.into()) } else { Ok(Self(endpoints)) }
    }

    /// The channel of this name, if it takes requests.
    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.0.get(name)
    }

    /// All names, for the log.
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// A channel that takes requests.
pub struct Endpoint {
    name: String,
    config: Arc<Config>,
    plugins: Plugins,
    ledger: Ledger,
    /// Made when it is first needed, and again where that failed.
    channel: Mutex<Option<Arc<dyn ChannelConnector>>>,
    /// As many as it may be given at the same time.
    turns: Arc<Semaphore>,
    /// The last trouble that was told, and when.
    told: Mutex<Option<(String, Instant)>>,
}

impl Endpoint {
    /// Answers a request, within this time.
    pub async fn answer(self: &Arc<Self>, request: HttpRequest, within: Duration) -> Answer {
        let until = tokio::time::Instant::now() + within;
        // Not stopped by a sender that goes away: what its request told is true all the same.
        let work = tokio::spawn(Arc::clone(self).taken(request, until, within));
        match timeout_at(until, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => self.trouble(&format!("the request could not be answered: {error}"), None),
            Err(_) => self.trouble(&format!("no answer within {} s", within.as_secs()), None),
        }
    }

    async fn taken(self: Arc<Self>, request: HttpRequest, until: tokio::time::Instant, within: Duration) -> Answer {
        // Kept until its events are stored: nobody who is told to come again piles up more than this.
        let Ok(Ok(_turn)) = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await else {
            return self.trouble(&format!("no turn within {} s: it has too many requests", within.as_secs()), None);
        };
        let options = CallOptions { dry_run: false, deadline_unix_ms: Some(unix_ms(until)), run_id: String::new() };
        let asked = Arc::clone(&self);
        let answered = tokio::task::spawn_blocking(move || asked.channel().and_then(|channel| channel.callback(&options, &request)));
        let callback = match answered.await {
            Ok(Ok(callback)) => callback,
            Ok(Err(error)) => return self.trouble(&error.to_string(), error.retry_after_ms),
            Err(error) => return self.trouble(&format!("the request could not be answered: {error}"), None),
        };
        match self.store(&callback).await {
            Ok(()) => {
                tracing::debug!(channel = self.name, status = callback.status, events = callback.events.len(), "a request was answered");
                sent(callback)
            }
            Err(error) => self.trouble(&format!("what a request told cannot be stored: {}", components::chain(&error)), None),
        }
    }

    /// The channel, whose worker may have to be started.
    fn channel(&self) -> Result<Arc<dyn ChannelConnector>, PluginError> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = &*channel {
            return Ok(Arc::clone(channel));
        }
        let made = components::channel_for(&self.config, &self.plugins, &self.name, Part::Callbacks).map_err(|trouble| match trouble {
            Trouble::Plugin(error) => error,
            Trouble::Config(findings) => PluginError::new(ErrorClass::InvalidConfig, findings.to_string()),
        })?;
        Ok(Arc::clone(channel.insert(made.into())))
    }

    /// Stores what a request told. The same event again changes nothing.
    async fn store(&self, callback: &Callback) -> Result<(), reunion_ledger::LedgerError> {
        if callback.events.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = callback.events.iter().cloned().map(dispatch::event).collect();
        fault::point("callback.before");
        let stored = self.ledger.commit_poll(&self.name, &events, None, now_us()).await?;
        fault::point("callback.after");
        dispatch::notes(&self.name, &stored).iter().for_each(|note| tracing::warn!("{note}"));
        Ok(())
    }

    /// What the sender is told where its request cannot be answered now. Of a trouble that lasts the operator is told
    /// now and then.
    fn trouble(&self, why: &str, retry_after_ms: Option<u64>) -> Answer {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.as_ref().is_none_or(|(last, at)| last != why || at.elapsed() > TOLD_AGAIN);
        if is_news {
            tracing::warn!(channel = self.name, "requests from outside are not answered: {why}");
            *told = Some((why.to_owned(), Instant::now()));
        }
        not_now(retry_after_ms)
    }
}

/// A moment as plugins are told it.
fn unix_ms(at: tokio::time::Instant) -> u64 {
    let left = at.saturating_duration_since(tokio::time::Instant::now());
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + left;
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// The plugin's answer as it is sent. The host has checked it.
fn sent(callback: Callback) -> Answer {
    let has_body = !callback.body.is_empty();
    let status = StatusCode::from_u16(callback.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut sent = answer(status, callback.body.into());
    for (name, value) in &callback.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            sent.headers_mut().append(name, value);
        }
    }
    match has_body && !sent.headers().contains_key(CONTENT_TYPE) {
        // So that no browser takes what somebody had us say for a page.
        true => with(sent, CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        false => sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_sent_as_the_plugin_gave_it() {
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())];
        let callback = |body: &[u8], headers| Callback { status: 202, headers, body: body.to_vec(), events: Vec::new() };
        let plain = sent(callback(b"ok", headers));
        assert_eq!(plain.status().as_u16(), 202);
        assert_eq!(plain.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(plain.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        let typed = vec![("content-type".to_owned(), "application/xml".to_owned())];
        assert_eq!(sent(callback(b"<a/>", typed)).headers()[CONTENT_TYPE], "application/xml");
        assert!(!sent(callback(b"", Vec::new())).headers().contains_key(CONTENT_TYPE));
    }
}
