"""Enriched events of Snowplow, as the TSV of the enriched topic or as JSON of an analytics SDK.

The columns and their order: https://docs.snowplow.io/docs/pipeline/enriched-tsv-format/
The JSON has the same names: https://docs.snowplow.io/docs/destinations/analytics-sdk/
"""

from collections.abc import Mapping
from typing import Any

from streamer.errors import InvalidEvent
from streamer.sources.clicks import MALFORMED, Headers
from streamer.sources.decoding import Decoder, as_text, content
from streamer.sources.json_clicks import json_object

COLUMNS = (
    "app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id"
    " name_tracker v_tracker v_collector v_etl user_id user_ipaddress user_fingerprint"
    " domain_userid domain_sessionidx network_userid geo_country geo_region geo_city geo_zipcode"
    " geo_latitude geo_longitude geo_region_name ip_isp ip_organization ip_domain ip_netspeed"
    " page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath"
    " page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath"
    " refr_urlquery refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source"
    " mkt_term mkt_content mkt_campaign contexts se_category se_action se_label se_property"
    " se_value unstruct_event tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city"
    " tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity"
    " pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family"
    " br_version br_type br_renderengine br_lang br_features_pdf br_features_flash"
    " br_features_java br_features_director br_features_quicktime br_features_realplayer"
    " br_features_windowsmedia br_features_gears br_features_silverlight br_cookies"
    " br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone"
    " dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height"
    " tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base"
    " base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp"
    " refr_domain_userid refr_device_tstamp derived_contexts domain_sessionid derived_tstamp"
    " event_vendor event_name event_format event_version event_fingerprint true_tstamp"
).split()


class SnowplowDecoder(Decoder):
    """Each record is one enriched event; one that begins as a JSON object is one."""

    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the members or the columns of an event. Raises `InvalidEvent`."""
        del headers
        value = content(value)
        if value.startswith(b"{"):
            return json_object(value)
        columns = as_text(value).rstrip("\r\n").split("\t")
        if len(columns) != len(COLUMNS):
            msg = (
                f"expected an enriched event: a JSON object, or {len(COLUMNS)} columns between "
                f"tabs, found {len(columns)}"
            )
            raise InvalidEvent(MALFORMED, msg)
        return dict(zip(COLUMNS, columns, strict=True))
