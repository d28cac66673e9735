// The messages of the contract as this page uses them.

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
 * @property {number} normalCount how many there were
 * @property {Date} created
 * @property {Date} updated
 * @property {string} backbone
 * @property {string} precision
 * @property {number} bankBytes
 * @property {string} views NONE, AUTO or ALL: whether the bank may have mirrored and turned copies of the images
 * @property {number} scales how many sizes of the items the bank has
 * @property {number | null} viewsPerImage that the bank was made of, the image itself included; null: not known
 * @property {number} inputWidthPx of what the network sees
 * @property {number} inputHeightPx
 * @property {{sidePx: number, isAuto: boolean, tilePx: number, tileOverlap: number, aspect: string}} input as the load requested it;
 *   0: not requested
 * @property {{ratio?: number, max_patches?: number} | null} coreset of the load; null: all patches are kept
 * @property {number | null} searchRadius as a share of the image's side; null: the whole image
 * @property {{points: {x: number, y: number}[]}[]} regionOfInterest empty: the whole image
 * @property {boolean} approximateSearch
 * @property {number | null} whiteLevel null: what each file says
 * @property {number | null} requestedRate of false alarms; null: none was requested
 * @property {{rate: number, upper: number} | null} falseAlarms the expected share, and what it is at most; null: not known
 * @property {{state: string, imageCount: number, outlierShare: number} | null} drift how recent images compare with it; null:
 *   not in this answer
 */

/** @returns {Reference} */
export function readReference(json) {
  return {
    id: json.reference_id,
    revision: json.revision,
    previousRevision: json.previous_revision,
    imageCount: json.image_count,
    patchCount: json.patch_count,
    featureDim: json.feature_dim,
    profile: json.profile.replace("SCORING_PROFILE_", ""),
    calibrationMethod: json.calibration.method.replace("CALIBRATION_METHOD_", ""),
    calibratedThreshold: json.calibration.image_threshold,
    threshold: json.threshold,
    sensitivity: json.sensitivity,
    normalScores: json.calibration.normal_scores.scores ?? [],
    normalCount: json.calibration.normal_scores.count,
    created: new Date(json.create_time),
    updated: new Date(json.update_time),
    backbone: json.backbone,
    precision: json.precision,
    bankBytes: Number(json.bank_bytes), // 64-bit integers are strings in JSON
    views: json.views.replace("REFERENCE_VIEWS_", ""),
    scales: json.scales,
    viewsPerImage: json.views_per_image ?? null,
    inputWidthPx: json.input_width_px,
    inputHeightPx: json.input_height_px,
    input: {
      sidePx: json.input?.longer_side_px ?? 0,
      isAuto: json.input?.auto ?? false,
      tilePx: json.input?.tile_px ?? 0,
      tileOverlap: json.input?.tile_overlap ?? 0,
      aspect: (json.input?.aspect ?? "ASPECT_RATIO_SQUEEZE").replace("ASPECT_RATIO_", ""),
    },
    coreset: coresetOf(json.coreset),
    drift: json.drift && {
      state: json.drift.state.replace("DRIFT_STATE_", ""),
      imageCount: json.drift.image_count,
      outlierShare: json.drift.outlier_share ?? 0,
    },
    searchRadius: json.search_radius ?? null,
    regionOfInterest: json.region_of_interest,
    approximateSearch: json.approximate_search,
    whiteLevel: json.white_level ?? null,
    requestedRate: json.false_alarm_rate ?? null,
    falseAlarms: json.calibration.false_alarm_rate === undefined ? null : {
      rate: json.calibration.false_alarm_rate, upper: json.calibration.false_alarm_rate_upper,
    },
  };
}

/** A load takes one of the two only. */
function coresetOf(json) {
  if (!json) return null;
  return json.ratio ? { ratio: json.ratio } : { max_patches: json.max_patches };
}

/**
 * What a reference costs.
 * @typedef {object} Cost
 * @property {number} patchesPerImage
 * @property {number} memoryBytes
 * @property {number} msPerImage
 */

/** @returns {Cost | null} null: the server does not tell */
export function readCost(json) {
  return json ? { patchesPerImage: json.patches_per_image, memoryBytes: Number(json.memory_bytes), msPerImage: json.ms_per_image } : null;
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

/** @returns {Inspection} the answer must have an overlay */
export function readInspection(json) {
  const { anomaly, damage, overlay, timing } = json;
  return {
    referenceId: json.reference_id,
    revision: json.reference_revision,
    isAnomalous: anomaly.is_anomalous,
    ratio: anomaly.raw_score / anomaly.raw_threshold,
    areaPercentage: anomaly.anomalous_area_percentage,
    damagePercentage: damage.damage_percentage,
    regions: json.regions.map(readRegion),
    overlay: imageOf(overlay.image || json.overlay_png, overlay.media_type),
    widthPx: overlay.source_width_px,
    heightPx: overlay.source_height_px,
    timing: {
      queueMs: timing.queue_ms,
      decodeMs: timing.decode_ms,
      embedMs: timing.embed_ms,
      searchMs: timing.search_ms,
      renderMs: timing.render_ms,
      totalMs: timing.total_ms,
    },
  };
}

function readRegion(json) {
  return {
    polygon: json.polygon.map((point) => ({ x: point.x_px, y: point.y_px })),
    areaPercentage: json.area_percentage,
    ratio: json.peak_score / (1 - json.peak_score),
  };
}

/**
 * @param {string} base64
 * @param {string} mediaType
 * @returns {Blob}
 */
export function imageOf(base64, mediaType) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: mediaType });
}
