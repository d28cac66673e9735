// The messages of the contract as this page uses them. In JSON, a field with its default value is left out.

/**
 * @typedef {object} Reference
 * @property {string} id
 * @property {string} revision
 * @property {string} previousRevision "": none is kept
 * @property {number} imageCount
 * @property {number} patchCount
 * @property {number} featureDim
 * @property {string} profile
 * @property {string} calibrationMethod
 * @property {number} calibratedThreshold the raw score that is 1 x at sensitivity 1
 * @property {number} threshold the raw score that is 1 x now
 * @property {number} sensitivity
 * @property {number[]} normalScores raw scores, the lowest first; empty: not known
 * @property {Date} created
 * @property {Date} updated
 * @property {string} backbone
 * @property {string} precision
 * @property {number} bankBytes
 */

/** @returns {Reference} */
export function readReference(json) {
  const calibration = json.calibration ?? {};
  return {
    id: json.referenceId,
    revision: json.revision,
    previousRevision: json.previousRevision ?? "",
    imageCount: json.imageCount ?? 0,
    patchCount: json.patchCount ?? 0,
    featureDim: json.featureDim ?? 0,
    profile: (json.profile ?? "").replace("SCORING_PROFILE_", ""),
    calibrationMethod: (calibration.method ?? "").replace("CALIBRATION_METHOD_", ""),
    calibratedThreshold: calibration.imageThreshold ?? 0,
    threshold: json.threshold ?? 0,
    sensitivity: json.sensitivity ?? 1,
    normalScores: calibration.normalScores?.scores ?? [],
    created: new Date(json.createTime),
    updated: new Date(json.updateTime),
    backbone: json.backbone ?? "",
    precision: json.precision ?? "",
    bankBytes: Number(json.bankBytes ?? 0), // 64-bit integers are strings in JSON
  };
}

/**
 * @typedef {object} Region
 * @property {{x: number, y: number}[]} polygon in pixels of the image
 * @property {number} areaPercentage
 * @property {number} ratio
 */

/**
 * @typedef {object} Inspection
 * @property {string} referenceId
 * @property {string} revision
 * @property {boolean} isAnomalous
 * @property {number} ratio the raw score divided by the threshold
 * @property {number} areaPercentage
 * @property {number} damagePercentage
 * @property {Region[]} regions
 * @property {Blob} overlay
 * @property {number} widthPx of the image
 * @property {number} heightPx
 * @property {{queueMs: number, decodeMs: number, embedMs: number, searchMs: number, renderMs: number, totalMs: number}} timing
 */

/** @returns {Inspection} */
export function readInspection(json) {
  const anomaly = json.anomaly ?? {};
  const overlay = json.overlay ?? {};
  const timing = json.timing ?? {};
  return {
    referenceId: json.referenceId,
    revision: json.referenceRevision,
    isAnomalous: anomaly.isAnomalous ?? false,
    ratio: (anomaly.rawScore ?? 0) / (anomaly.rawThreshold ?? 0),
    areaPercentage: anomaly.anomalousAreaPercentage ?? 0,
    damagePercentage: json.damage?.damagePercentage ?? 0,
    regions: (json.regions ?? []).map(readRegion),
    overlay: imageOf(overlay.image || json.overlayPng, overlay.mediaType),
    widthPx: overlay.sourceWidthPx,
    heightPx: overlay.sourceHeightPx,
    timing: {
      queueMs: timing.queueMs ?? 0,
      decodeMs: timing.decodeMs ?? 0,
      embedMs: timing.embedMs ?? 0,
      searchMs: timing.searchMs ?? 0,
      renderMs: timing.renderMs ?? 0,
      totalMs: timing.totalMs ?? 0,
    },
  };
}

function readRegion(json) {
  const peak = json.peakScore ?? 0;
  return {
    polygon: (json.polygon ?? []).map((point) => ({ x: point.xPx ?? 0, y: point.yPx ?? 0 })),
    areaPercentage: json.areaPercentage ?? 0,
    ratio: peak / (1 - peak),
  };
}

/**
 * @param {string} base64
 * @param {string} mediaType
 * @returns {Blob}
 */
export function imageOf(base64, mediaType) {
  const text = atob(base64);
  return new Blob([Uint8Array.from(text, (character) => character.charCodeAt(0))], { type: mediaType });
}
