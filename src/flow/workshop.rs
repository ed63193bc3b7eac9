//! Makes the checks of a configuration: verifier, filter engine, keys. I/O: rule files, the model, key files.

use std::sync::Arc;

use prometheus::Registry;

use crate::config::Config;
use crate::dns::Resolver;
use crate::filter::scanners::ask::Resolve;
use crate::filter::scanners::{self, Scanners};
use crate::filter::{self, Engine};
use crate::verify::decide::Overrides;
use crate::verify::{self, Signer, Verifier};

use super::checks::Checks;
use super::docket::Docket;

/// Makes the checks of a configuration.
pub(super) struct Workshop {
    resolver: Arc<Resolver>,
    verify: verify::meters::Meters,
    filter: Arc<filter::meters::Meters>,
    scanners: scanners::meters::Meters,
}

impl Workshop {
    /// Registers what verify and filter count.
    /// # Errors
    /// If one of the names is taken.
    pub fn new(resolver: Arc<Resolver>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let filter = Arc::new(filter::meters::Meters::register(registry)?);
        let scanners = scanners::meters::Meters::register(registry)?;
        Ok(Workshop { resolver, verify: verify::meters::Meters::register(registry)?, filter, scanners })
    }

    /// The resolver that all share.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The checks of `config`. Rules and model are read once and taken over by a reload, which reads the rules again.
    /// # Errors
    /// A damaged model or a key that can't be used, in words.
    pub fn checks(&self, config: &Config, old: Option<&Checks>) -> Result<Arc<Checks>, String> {
        let wanted = config.filters();
        let engine = match old.and_then(Checks::engine).filter(|_| wanted) {
            Some(engine) => {
                engine.reload(&config.filter);
                Some(engine)
            }
            None if wanted => {
                let model = config.data_dir.join(filter::classifier::file::DEFAULT_NAME);
                Some(Arc::new(Engine::open(&config.filter, Some(&model)).map_err(|error| error.to_string())?))
            }
            None => None,
        };
        if let Some(engine) = &engine {
            let problems = engine.problems();
            tracing::info!(rules = engine.rules_loaded(), problems = problems.len(), "filter rules loaded");
        }
        Ok(Arc::new(Checks {
            verifier: Verifier::new(self.resolver.clone(), &config.hostname, self.verify.clone()),
            docket: engine.map(|engine| Docket::new(engine, self.filter.clone())),
            filter_meters: self.filter.clone(),
            scanners: Scanners::new(config, self.resolve(), self.scanners.clone()),
            signer: Signer::load(&config.dkim)?,
            overrides: Overrides::from_settings(&config.verify),
            trusted_hops: config.verify.trusted_hops.clone(),
            seal_as: config.verify.seal_as.clone(),
            authserv_id: config.verify.authserv_id.clone(),
        }))
    }

    /// Finds scanners by our own resolver, so that `[dns] servers` holds for them too.
    fn resolve(&self) -> Resolve {
        let resolver = self.resolver.clone();
        Arc::new(move |host| {
            let resolver = resolver.clone();
            Box::pin(async move {
                resolver.addresses(&host).await.map_err(|fault| std::io::Error::other(fault.to_string()))
            })
        })
    }
}
