"""Which modules our Asterisk loads: the calls it must carry, and no more."""

from __future__ import annotations

from collections.abc import Iterable

# Without one of these no call reaches the application.
REQUIRED = (
    "app_stasis",
    "bridge_simple",
    "chan_pjsip",
    "chan_rtp",
    "codec_alaw",
    "codec_ulaw",
    "pbx_config",
    "res_ari",
    "res_ari_asterisk",
    "res_ari_bridges",
    "res_ari_channels",
    "res_ari_events",
    "res_http_websocket",
    "res_pjproject",
    "res_pjsip",
    "res_pjsip_authenticator_digest",
    "res_pjsip_caller_id",
    "res_pjsip_endpoint_identifier_ip",
    "res_pjsip_endpoint_identifier_user",
    "res_pjsip_registrar",
    "res_pjsip_sdp_rtp",
    "res_pjsip_session",
    "res_rtp_asterisk",
    "res_rtp_multicast",  # chan_rtp takes symbols from it
    "res_sorcery_astdb",
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_stasis",
    "res_stasis_answer",
    "res_timing_timerfd",
)

# Loaded where they exist: each Asterisk version has its own set.
OPTIONAL = (
    "app_audiosocket",
    "app_chanspy",  # func_periodic_hook, which app_mixmonitor builds on, wants it
    "app_dial",
    "app_echo",
    "app_milliwatt",
    "app_mixmonitor",
    "app_originate",
    "app_playback",
    "app_playtones",
    "app_read",
    "app_record",
    "app_senddtmf",
    "app_stack",
    "app_system",
    "app_transfer",
    "app_verbose",
    "app_waitforsilence",
    "app_while",
    "bridge_builtin_features",
    "bridge_builtin_interval_features",
    "bridge_holding",
    "bridge_native_rtp",
    "bridge_softmix",
    "chan_audiosocket",
    "chan_bridge_media",
    "chan_websocket",
    "codec_a_mu",
    "codec_g722",
    "codec_gsm",
    "codec_opus_open_source",
    "codec_resample",
    "format_gsm",
    "format_pcm",
    "format_sln",
    "format_wav",
    "func_base64",
    "func_callerid",
    "func_channel",
    "func_cut",
    "func_db",
    "func_devstate",
    "func_dialplan",
    "func_env",
    "func_frame_trace",
    "func_global",
    "func_groupcount",
    "func_hangupcause",
    "func_jitterbuffer",
    "func_json",
    "func_logic",
    "func_math",
    "func_periodic_hook",
    "func_pjsip_aor",
    "func_pjsip_contact",
    "func_pjsip_endpoint",
    "func_rand",
    "func_strings",
    "func_talkdetect",
    "func_timeout",
    "func_uri",
    "func_uuid",
    "func_volume",
    "res_ari_applications",
    "res_ari_device_states",
    "res_ari_endpoints",
    "res_ari_model",
    "res_ari_playbacks",
    "res_ari_recordings",
    "res_ari_sounds",
    "res_audiosocket",
    "res_crypto",
    "res_format_attr_opus",
    "res_musiconhold",
    "res_pjsip_diversion",
    "res_pjsip_dlg_options",
    "res_pjsip_dtmf_info",
    "res_pjsip_header_funcs",
    "res_pjsip_logger",
    "res_pjsip_nat",
    "res_pjsip_outbound_authenticator_digest",
    "res_pjsip_outbound_registration",
    "res_pjsip_pubsub",
    "res_pjsip_refer",
    "res_pjsip_rfc3326",
    "res_srtp",
    "res_stasis_device_state",
    "res_stasis_playback",
    "res_stasis_recording",
    "res_stasis_snoop",
    "res_websocket_client",
)


def missing(present: Iterable[str]) -> list[str]:
    """Return the required modules that are not among ``present`` (names without ``.so``)."""
    return sorted(set(REQUIRED) - set(present))


def modules_conf(present: Iterable[str]) -> str:
    """Return the lines of modules.conf that load our modules among ``present`` (names without ``.so``).

    A required one that does not load ends Asterisk at the start, instead of leaving it half working.
    """
    have = set(present)
    lines = [f"require = {name}.so" for name in REQUIRED]
    lines += [f"load = {name}.so" for name in OPTIONAL if name in have]
    return "\n".join(lines)
