"""The codes that may stand in a machine-readable zone for a state, an organisation or a nationality.

Source: ICAO Doc 9303 part 3, section 5, which takes ISO 3166-1 alpha-3 and adds its own parts; what is added
here although ICAO does not list it is said beside it.
"""

from __future__ import annotations

# ISO 3166-1 alpha-3. Germany's DEU is in it, but not in the zone, where Germany is `D`: see below.
_ISO = frozenset(
    """
    ABW AFG AGO AIA ALA ALB AND ARE ARG ARM ASM ATA ATF ATG AUS AUT AZE BDI BEL BEN BES BFA BGD BGR BHR
    BHS BIH BLM BLR BLZ BMU BOL BRA BRB BRN BTN BVT BWA CAF CAN CCK CHE CHL CHN CIV CMR COD COG COK COL
    COM CPV CRI CUB CUW CXR CYM CYP CZE DJI DMA DNK DOM DZA ECU EGY ERI ESH ESP EST ETH FIN FJI FLK FRA
    FRO FSM GAB GBR GEO GGY GHA GIB GIN GLP GMB GNB GNQ GRC GRD GRL GTM GUF GUM GUY HKG HMD HND HRV HTI
    HUN IDN IMN IND IOT IRL IRN IRQ ISL ISR ITA JAM JEY JOR JPN KAZ KEN KGZ KHM KIR KNA KOR KWT LAO LBN
    LBR LBY LCA LIE LKA LSO LTU LUX LVA MAC MAF MAR MCO MDA MDG MDV MEX MHL MKD MLI MLT MMR MNE MNG MNP
    MOZ MRT MSR MTQ MUS MWI MYS MYT NAM NCL NER NFK NGA NIC NIU NLD NOR NPL NRU NZL OMN PAK PAN PCN PER
    PHL PLW PNG POL PRI PRK PRT PRY PSE PYF QAT REU ROU RUS RWA SAU SDN SEN SGP SGS SHN SJM SLB SLE SLV
    SMR SOM SPM SRB SSD STP SUR SVK SVN SWE SWZ SXM SYC SYR TCA TCD TGO THA TJK TKM TKL TLS TON TTO TUN
    TUR TUV TWN TZA UGA UKR UMI URY USA UZB VAT VCT VEN VGB VIR VNM VUT WLF WSM YEM ZAF ZMB ZWE
    """.split()  # noqa: SIM905 - a table is read in rows
)
_ICAO = frozenset(
    """
    D EUE GBD GBN GBO GBP GBS UNK UNO UNA UTO XBA XCC XCE XCO XDC XEC XES XIM XMP XOM XPO
    """.split()  # noqa: SIM905 - a table is read in rows
)
_IN_USE = frozenset({"DEU", "RKS"})  # DEU on some older papers; Kosovo's own passports say RKS
_PERSONS_ONLY = frozenset({"XXA", "XXB", "XXC", "XXX"})  # stateless, refugee, other refugee, unspecified

SPECIMEN_STATE = "UTO"  # Utopia: for samples only, never on a real document

ISSUERS: frozenset[str] = _ISO | _ICAO | _IN_USE
NATIONALITIES: frozenset[str] = ISSUERS | _PERSONS_ONLY


def coded(text: str, codes: frozenset[str]) -> bool:
    """Whether three positions hold one of `codes`, left-justified and filled up with `<`."""
    code = text.rstrip("<")
    return len(text) == 3 and "<" not in code and code in codes
