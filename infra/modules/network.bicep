// A network for the app and its private endpoints, with the DNS zones that lead to them.

@description('The first part of the names.')
param name string

@description('Where the network lives.')
param location string

@description('Tags of every resource.')
param tags object

@description('Addresses of the network, at least a /22.')
param prefix string

// Azure's public cloud; the main template refuses a private network in the others.
var zoneNames = [
  'privatelink.blob.${environment().suffixes.storage}'
  'privatelink.table.${environment().suffixes.storage}'
  'privatelink.vaultcore.azure.net'
  'privatelink.openai.azure.com'
  'privatelink.azurewebsites.net'
]

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: '${name}-network'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [prefix] }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(prefix, 24, 0)
          delegations: [
            {
              name: 'functions'
              properties: { serviceName: 'Microsoft.App/environments' }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(prefix, 24, 1)
          privateEndpointNetworkPolicies: 'Disabled'
        }
      }
    ]
  }

  resource appSubnet 'subnets' existing = {
    name: 'app'
  }

  resource endpointSubnet 'subnets' existing = {
    name: 'endpoints'
  }
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zone in zoneNames: {
    name: zone
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zone, i) in zoneNames: {
    parent: zones[i]
    name: '${name}-network'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: network.id }
    }
  }
]

@description('The subnet that the app sends from.')
output appSubnetId string = network::appSubnet.id

@description('The subnet of the private endpoints.')
output endpointSubnetId string = network::endpointSubnet.id

@description('The zone of blob endpoints.')
output blobZoneId string = zones[0].id

@description('The zone of table endpoints.')
output tableZoneId string = zones[1].id

@description('The zone of vaults.')
output vaultZoneId string = zones[2].id

@description('The zone of Azure OpenAI accounts.')
output openAiZoneId string = zones[3].id

@description('The zone of function apps.')
output sitesZoneId string = zones[4].id
