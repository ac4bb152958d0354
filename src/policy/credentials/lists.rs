//! Built-in lists of names: cookies and query parameters.
//!
//! Names are compared in a normalised form, which ignores case and treats `_`, `-` and `.` as
//! equal. `*` matches any characters. Each list is sorted by the normalised form.

use crate::field::name::{PatternSet, WordSet};

/// Session, login and token cookies of frameworks, applications, identity providers and gateways.
#[rustfmt::skip]
pub static SESSION_COOKIES: PatternSet = PatternSet::new(&[
    "__ac", "__ac_*", "__clerk_*", "__client*", ".ASPXROLES*",
    "_merchant_essential", "_pomerium*", "_shibstate_*", "_shopify_essential", "_shopify_m",
    "_storefront_u", "_t", "_ZopeId", "a0:*", "adminhtml", "amlbcookie", "APEX_*", "api_key",
    "bearer*", "cadata*", "cadataIV", "cadataKey", "cadataSig", "cadataTTL", "CAKEPHP*", "cart",
    "cart_sig", "CASPRIVACY", "CASTGC*", "CFGLOBALS", "CFID", "cognito*", "ct0", "customer_sig",
    "datr", "did", "did_compat", "DSSignInURL", "EdgeAccessCookie", "esctx*", "F5_ST*", "frontend",
    "frontend_cid", "fuelcid", "GCP_IAAP*", "GCP_IAP*", "GLASSFISH*", "harbor-*", "Horde*", "IAP_*", "id_pve",
    "idx", "imp_key", "ipb_pass_hash", "iPlanetDirectoryPro*", "ips4_*", "jenkins-*",
    "jupyterhub-*", "KC_*", "KEYCLOAK_*", "kinde_*", "known_sign_in", "li_at", "mellon-*", "metabase.DEVICE",
    "MOODLEID1_*", "MRHSHint", "MSISSignOut", "MSPProf", "NSC_AAAC", "NSC_TMAA", "NSC_TMAS",
    "OAM_ID", "OAM_REQ*", "oid", "openam*", "ORA_*", "PD_STATEFUL_*", "persistent_shopping_cart",
    "PHPBB*", "phpbb3_*_k", "phpbb3_*_u", "phpMyAdmin*", "redmine_*", "rtFa",
    "secure_customer_sig", "seraph.*", "shib_idp_*", "sid-*", "sid_Client", "sid_kibana", "SIDCC",
    "SignInStateCookie", "SMDATA", "SMFCookie*", "SOGo*", "SPOIDCRL", "storefront_digest",
    "stytch_*", "sugar_*", "SVPNCOOKIE", "symfony", "TGC", "twid", "u_id", "uid_*", "unifises",
    "usr", "vbulletin_*", "vouch*", "VouchCookie*", "WASReqURL", "WEBLOGIC*", "webvpn*",
    "wordpress_sec_*", "wp-postpass_*", "X-BackEndCookie", "xs", "yii*",
]);

/// Cookies that select content without identifying the client.
#[rustfmt::skip]
pub static SELECTING_COOKIES: PatternSet = PatternSet::new(&[
    ".AspNetCore.Culture", "_icl_current_language", "ab", "ab_*", "ab_test*", "abtest*",
    "abtesting*", "audience", "bucket", "bucket_*", "cart_currency", "city", "cohort",
    "color_mode", "color-scheme*", "colormode", "colorscheme", "colorTheme", "country",
    "country_*", "countrycode", "culture", "cur", "currency", "currency_*", "current_currency",
    "dark", "dark_mode", "darkmode", "density", "device", "device_type", "django_language", "dpr",
    "edition", "exp_*", "experiment", "experiment_*", "experiments", "feature_flags",
    "featureflags", "flags", "font_size", "fontsize", "geo", "geo_*", "geoip*", "gl", "hl",
    "i18n*", "i18next", "lang", "lang_*", "langcode", "language", "language_*", "layout",
    "light_mode", "lng", "locale", "locale_*", "localization", "location", "location_*", "market",
    "market_*", "mui-mode", "next-i18n-router-locale", "NEXT_LOCALE", "PARAGLIDE_LOCALE",
    "pll_language", "postal_code", "postcode", "preferred_language", "preferredLanguage",
    "prefers-color-scheme", "region", "region_*", "selected_currency", "site", "site_*", "split_*",
    "store", "store_*", "store_code", "storeview", "temperature_unit", "theme*", "time_zone",
    "timezone", "tz", "tzoffset", "ui_lang", "ui_locale", "unit", "units", "user_country",
    "user_currency", "user_lang", "user_language", "user_locale", "user_region", "user_theme",
    "user_timezone", "variant", "variant_*", "variation", "variation_*", "view", "view_mode",
    "viewport", "wmc_current_currency", "woocommerce_current_currency", "wp_lang",
    "wp-wpml_current_language", "X-Magento-Vary", "zip", "zipcode",
]);

/// Cookies for analytics, advertising, consent, load balancing, and bot and forgery protection.
#[rustfmt::skip]
pub static HARMLESS_COOKIES: PatternSet = PatternSet::new(&[
    "___utmv*", "__adroll*", "__ar_v4", "__attentive_*", "__cf_bm", "__cflb", "__cfruid",
    "__cfwaitingroom", "__ddg*", "__eoi", "__gads", "__gpi*", "__hs*", "__kla_id", "__qca",
    "__RequestVerificationToken*", "__utm*", "__zlcmid", "__zlcstore", "_abck",
    ".AspNetCore.Antiforgery.*", "_attn_*", "_cb", "_cb_*", "_ce.*", "_ce_clock*", "_cfuvid",
    "_chartbeat*", "_clck", "_clsk", "_cs_c", "_cs_id", "_cs_mk*", "_cs_s", "_csrf*", "_dc_gtm_*",
    "_dd_cookie_test_*", "_dd_s*", "_derived_epik", "_evidon_*", "_fbc", "_fbp", "_fw_crm_v",
    "_ga", "_ga_*", "_gac_*", "_gaexp*", "_gat", "_gat_*", "_gcl_*", "_gd_*", "_gid",
    "_GRECAPTCHA", "_hj*", "_hp2_*", "_hp5_*", "_iub_cs-*", "_kla_id", "_landing_page", "_lr_*",
    "_micpn", "_mkto_trk", "_opt_*", "_orig_referrer", "_parsely_*", "_pin_unauth",
    "_pinterest_ct*", "_pk_*", "_px*", "_rdt_cid", "_rdt_em", "_rdt_uuid", "_scid*", "_sctr",
    "_shopify_s", "_shopify_sa_*", "_shopify_tracking_consent", "_shopify_y", "_sp_id.*",
    "_sp_ses.*", "_sp_v1_*", "_tb_*", "_tq_id.*", "_tracking_consent", "_tt_*", "_ttp", "_uet*",
    "_vis_opt_*", "_vwo_*", "_xsrf*", "_ym_*", "_zendesk_*", "ABTasty", "ABTastySession",
    "acceptCookies", "addtl_consent", "ai_session", "ai_user", "ajs_*", "ak_bmsc", "AMCV_*",
    "AMCVS_*", "AMP_*", "amplitude*", "AnalyticsSyncHistory", "ANONCHK", "antiforgery*",
    "ApplicationGatewayAffinity*", "ARRAffinity", "ARRAffinitySameSite", "authenticity_token",
    "aws-waf-token", "AWSALB", "AWSALBAPP-*", "AWSALBCORS", "AWSALBTG", "AWSALBTGCORS", "AWSELB",
    "AWSELBCORS", "axeptio_*", "bcookie", "BIGipServer*", "bm_lso", "bm_mi", "bm_s", "bm_so",
    "bm_ss", "bm_sv", "bm_sz", "borlabs-cookie*", "cc_cookie", "cebs", "cebsp_", "cf_chl_*",
    "cf_clearance", "cf_ob_info", "cf_use_ob", "cky-*", "CLID", "cmapi_*", "cmplz_*",
    "complianz_*", "CONSENT", "consent_*", "consentUUID", "cookie_accepted", "cookie_consent*",
    "cookie_notice_accepted", "cookie_policy*", "cookiebar", "CookieConsent", "cookieconsent*",
    "CookieConsentBulkSetting*", "CookieConsentPolicy", "cookiefirst-*", "cookielawinfo-*",
    "CookieLawInfoConsent", "cookies_accepted", "CookieScriptConsent", "cookieyes-*", "crazyegg*",
    "crisp-client*", "csrf*", "CSRF-TOKEN", "cto_*", "datadome", "didomi_token", "drift_*",
    "driftt_aid", "euconsent*", "eupubconsent*", "FCCDCF", "FCNEC", "FCOEC", "FPAU", "FPGCLAW",
    "FPGSID", "FPID", "FPLC", "fs_cid", "fs_lua", "fs_uid", "GCLB", "gdpr*",
    "heroku-session-affinity", "Hm_lpvt_*", "Hm_lvt_*", "hubspotutk", "IDE", "incap_ses_*",
    "INGRESSCOOKIE", "intercom-device-id-*", "intercom-id-*", "intercom-session-*",
    "kameleoonVisitorCode", "klaro", "klaviyo*", "KP_UIDz*", "li_fat_id", "li_gc", "li_sugr",
    "lidc", "ln_or", "matomo_ignore", "messagesUtk", "mf_*", "moove_gdpr_popup", "mp_*_mixpanel",
    "mtm_*", "muc_ads", "MUID", "nlbi_*", "notice_*", "NREUM", "olark*", "OptanonAlertBoxClosed",
    "OptanonConsent", "OptanonGroups", "optimizely*", "osano_*", "outbrain*", "pardot",
    "parsely_*", "personalization_id", "ph_*_posthog", "piwik_ignore", "pxcts", "reese84",
    "ROUTEID", "s_cc", "s_ecid", "s_fid", "s_nr*", "s_ppv*", "s_sq", "s_vi*", "sbjs_*", "SERVERID",
    "snowplow*", "SOCS", "t_gid", "TAconsentID", "tarteaucitron", "TawkConnectionTime",
    "test_cookie", "truste.*", "TS01*", "twk_*", "UserMatchHistory", "usprivacy",
    "viewed_cookie_policy", "visid_incap_*", "visitor_id*", "x-csrf*", "xsrf*", "XSRF-TOKEN",
    "yandexuid",
]);

/// Name parts that make an unlisted cookie a session cookie. The parts protect users if the origin
/// forgot `private`. A false match costs hits, not privacy.
#[rustfmt::skip]
pub const SESSION_PARTS: [&str; 18] = [
    "apikey", "aspnet", "auth", "credential", "identity", "jwt", "logged", "login", "member",
    "passw", "remember", "saml", "secret", "sess", "sso", "ticket", "token", "user",
];

/// Name suffixes that make an unlisted cookie a session cookie.
pub const SESSION_ENDS: [&str; 2] = ["sid", "uid"];

/// Parts of the names of anti-forgery tokens, which do not identify a user.
pub const FORGERY_PARTS: [&str; 4] = ["antiforgery", "csrf", "requestverification", "xsrf"];

/// Parameters that carry a key, a token or a session; names are listed without `-` and `_`.
#[rustfmt::skip]
pub static CREDENTIAL_PARAMETERS: WordSet = WordSet::new(&[
    "accesskey", "accesskeyid", "accesstoken", "apikey", "apisecret", "apitoken", "appid",
    "appkey", "appsecret", "assertion", "auth", "authkey", "authorization", "authtoken", "bearer",
    "clientid", "clientsecret", "consumerkey", "credential", "idtoken",
    "jsessionid", "jwt", "key", "keypairid", "licensekey", "login", "loginticket", "logintoken",
    "oauthconsumerkey", "oauthtoken", "passphrase", "passwd", "password", "phpsessid", "pwd",
    "refreshtoken", "samlresponse", "secret", "secretkey", "session", "sessionid", "sessionkey",
    "sessiontoken", "sid", "signedrequest", "sso", "subscriptionkey", "ticket", "token", "userkey",
    "usertoken", "xaccesstoken", "xamzcredential", "xamzsecuritytoken", "xapikey", "xauthtoken",
    "xgoogcredential",
]);

/// Parameters that carry a signature, which expires.
#[rustfmt::skip]
pub static SIGNATURE_PARAMETERS: WordSet = WordSet::new(&[
    "hdnea", "hdntl", "hdnts", "hmac", "oauthsignature", "sig", "signature", "xamzsignature",
    "xcossignature", "xgoogsignature", "xosssignature",
]);
